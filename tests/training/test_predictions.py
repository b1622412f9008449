from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.training.runs import generated_spec, write_stored_run
from training import predictions


def test_a_number_is_in_the_third_in_which_it_would_be_among_the_rows_trained_on(tmp_path: Path) -> None:
    spec = generated_spec(slices=["amount"])
    run_dir = write_stored_run(tmp_path / "run", spec, num_rows=400)
    path = run_dir / "training_set.parquet"
    rows = pq.read_table(path)
    is_trained_on = rows["split"].to_numpy(zero_copy_only=False) == "train"
    drifted = np.where(is_trained_on, np.arange(400) % 3, np.where(np.arange(400) % 2, 2.0, np.nan))
    pq.write_table(rows.set_column(rows.column_names.index("amount"), "amount", [drifted]), path)

    trained_on, stored = predictions.read_trained_on(run_dir, spec), predictions.read(run_dir, spec)

    names = np.array(["low", "middle", "high"])
    assert (trained_on.slices["amount"] == names[np.arange(is_trained_on.sum()) % 3]).all()
    assert set(stored.of("test").slices["amount"]) == {"high", "unknown"}


def test_a_label_weighs_by_its_own_draw(tmp_path: Path) -> None:
    spec = generated_spec()
    run_dir = write_stored_run(tmp_path / "run", spec, num_rows=400)
    path = run_dir / "training_set.parquet"
    rows, label = pq.read_table(path), spec.labels[0]
    probabilities = np.where(np.arange(400) % 2, 0.0, 0.25)
    pq.write_table(rows.append_column(f"sampling_probability_{label}", [probabilities]), path)

    stored = predictions.read(run_dir, spec)

    drawn = dict(zip(rows["event_id"].to_pylist(), probabilities, strict=True))
    is_drawn = np.array([drawn[name] > 0 for name in stored.event_ids])
    is_known = stored.verdicts[:, 0] >= 0
    assert (stored.weights == 1).all()
    assert (stored.known(label) == np.flatnonzero(is_drawn & is_known)).all()
    assert (stored.sample(label, stored.logits).weights == 4).all()
