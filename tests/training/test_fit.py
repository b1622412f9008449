"""From a run folder to a bundle that scores: small real fits."""

import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import average_precision_score
from torch import Tensor

from tests.training.conftest import behaviour_spec, payments, text_spec, texts, tiny_encoder, write_run
from training.detector import DetectorSpec
from training.encoder import Encoder
from training.export import complete
from training.fit import fit
from training.fit_config import WATCHED
from training.golden import GoldenMismatch, check_golden, write_golden
from training.module import DetectorModule
from training.networks.behaviour import BehaviourNetwork
from training.networks.registry import NETWORKS
from training.networks.tabular import Network
from training.reports import READING, new_lines
from training.scorer import Scorer

NUM_ROWS = 2000
AVERAGE = {"network": "average", "members": ["ngram", "static", "encoder"], "static_size": 16}
KINDS = {
    "behaviour": {"max_epochs": 12},
    "text": {},
    "frozen": AVERAGE,
    "tuned": {**AVERAGE, "trainable_layers": 1, "max_epochs": 3},
}


@pytest.fixture(scope="module", params=KINDS)
def run_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, fit_changes = tmp_path_factory.mktemp("runs"), dict(KINDS[request.param])
    if "members" in fit_changes:
        fit_changes["pretrained"] = tiny_encoder(folder / "tiny")
    is_text = request.param != "behaviour"
    spec = text_spec(**fit_changes) if is_text else behaviour_spec(**fit_changes)
    run_dir = write_run(folder / "run", spec, rows=texts(NUM_ROWS) if is_text else payments(NUM_ROWS))
    fit(run_dir)
    complete(run_dir / "bundle")
    return run_dir


def test_a_fit_finds_what_there_is_to_find(run_dir: Path) -> None:
    predictions = pq.read_table(run_dir / "predictions.parquet")
    test = predictions.filter(pc.field("split") == "test")

    label = Scorer.load(run_dir / "bundle").spec.labels[0]
    assert average_precision_score(test[label].to_numpy(), test[f"logit_{label}"].to_numpy()) > 0.8
    assert set(predictions["split"].to_pylist()) == {"validation", "calibration", "test"}


def test_a_run_leaves_its_curves(run_dir: Path) -> None:
    curves = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]

    assert {"train_loss", "validation_loss", "validation_average_precision"} == {point["name"] for point in curves}
    assert all(point.keys() == {"epoch", "step", "name", "value"} for point in curves)


def test_a_run_says_how_much_a_frozen_encoder_has_read(run_dir: Path) -> None:
    reads_beforehand = Scorer.load(run_dir / "bundle").spec.fit.has_frozen_encoder

    told = list(map(json.loads, next(new_lines(run_dir / READING))))

    assert bool(told) == reads_beforehand
    assert all(one["name"] == "passages_read" and 0 < one["value"] == one["of"] for one in told)


@pytest.mark.parametrize(("every_s", "stored"), [(0.0, {11, 21, 31}), (3600.0, {35})])
def test_where_a_fit_is_is_stored_every_so_many_seconds_or_when_it_ends(
    every_s: float, stored: set[int], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", text_spec(global_batch_size=32, max_epochs=7, patience=None), rows=texts(300))

    fit(run, until="curves", checkpoint_every_s=every_s)

    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] in stored


def test_without_patience_the_last_epoch_is_kept(tmp_path: Path) -> None:
    spec = text_spec(max_epochs=5, learning_rate=0.5, patience=None)
    run = write_run(tmp_path / "run", spec, rows=texts(300))

    fit(run)

    curve = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = [one["value"] for one in curve if one["name"] == WATCHED]
    assert len(watched) == 5
    assert max(watched) > watched[-1]  # so the best on validation rows is another
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 4


def test_a_bundle_scores_what_the_fit_predicted(run_dir: Path) -> None:
    predictions = pq.read_table(run_dir / "predictions.parquet")
    rows = pq.read_table(run_dir / "training_set.parquet").filter(pc.field("split") != "train")
    scorer = Scorer.load(run_dir / "bundle")

    expected = np.stack([predictions[f"logit_{label}"].to_numpy() for label in scorer.spec.labels], axis=1)
    assert np.allclose(scorer.logits(rows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 333])
def test_a_row_scores_the_same_bits_alone_and_in_a_batch(run_dir: Path, size: int) -> None:
    rows = pq.read_table(run_dir / "training_set.parquet").slice(0, 400)
    scorer = Scorer.load(run_dir / "bundle")

    parts = [scorer.score(rows.slice(first, size)) for first in range(0, 400, size)]

    assert (np.concatenate(parts) == scorer.score(rows)).all()


def test_a_bundle_holds_no_pickle_and_what_serving_needs(run_dir: Path) -> None:
    names = {path.name for path in (run_dir / "bundle").iterdir()}

    expected = {"spec.json", "encoder.json", "model.safetensors", "dense.onnx", "golden.json"}
    has_encoder = "encoder" in Scorer.load(run_dir / "bundle").spec.fit.readers
    assert names == expected | ({"encoder.onnx"} if has_encoder else set())


def test_a_long_text_scores_as_its_worst_passage(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", text_spec(), rows=texts())
    fit(run_dir)
    scorer, calm, spam = Scorer.load(run_dir / "bundle"), "garden recipe " * 400, "jackpot unclaimed wallet"

    benign, alone, hidden = scorer.score([{"text": text} for text in (calm, spam, calm + spam)])[:, 0]
    spread = [{"role": "user", "content": word} for word in spam.split()]

    assert benign < hidden
    assert scorer.score([{"text": spread}])[0, 0] == scorer.score([{"text": spam.replace(" ", "\n")}])[0, 0]
    assert alone > 0.5


def test_calibration_moves_scores_and_golden_answers(run_dir: Path) -> None:
    bundle = run_dir / "bundle"
    before = Scorer.load(bundle)
    rows = pq.read_table(run_dir / "training_set.parquet").slice(0, 5)
    (bundle / "calibration.json").write_text(json.dumps({label: [0.5, -1.0] for label in before.spec.labels}))

    after = Scorer.load(bundle)

    assert np.allclose(after.score(rows), 1 / (1 + np.exp(-(0.5 * before.logits(rows) - 1))), atol=1e-6)
    with pytest.raises(GoldenMismatch, match="golden answers differ"):
        check_golden(bundle, after)
    write_golden(bundle)
    assert check_golden(bundle, after) == 0
    (bundle / "calibration.json").unlink()
    write_golden(bundle)


def test_golden_answers_bear_another_rounding_of_an_int8_encoder_and_of_nothing_else(run_dir: Path) -> None:
    bundle = run_dir / "bundle"
    scorer, golden = Scorer.load(bundle), json.loads((bundle / "golden.json").read_bytes())
    limit = 0.05 if scorer.spec.fit.has_frozen_encoder else 1e-6

    for share, is_borne in ((0.9, True), (1.1, False)):
        moved = (np.array(golden["probabilities"]) + share * limit).tolist()
        (bundle / "golden.json").write_text(json.dumps(golden | {"probabilities": moved}))
        with nullcontext() if is_borne else pytest.raises(GoldenMismatch, match=f"the limit is {limit:.0e}"):
            assert check_golden(bundle, scorer) == pytest.approx(share * limit)
    write_golden(bundle)


def test_a_dry_run_leaves_no_bundle(behaviour_run: Path) -> None:
    fit(behaviour_run, until="batch")

    assert not (behaviour_run / "bundle").exists()


def test_a_training_set_without_validation_rows_is_refused(tmp_path: Path) -> None:
    rows = payments(100).filter(pc.field("split") != "validation")
    run_dir = write_run(tmp_path / "run", behaviour_spec(), rows=rows)

    with pytest.raises(ValueError, match="has no row with split validation"):
        fit(run_dir)


def test_a_label_that_nobody_knows_among_the_validation_rows_counts_as_0(tmp_path: Path) -> None:
    rows = payments(400)
    is_validation = pc.equal(rows["split"], "validation")
    unknown = pc.if_else(is_validation, None, rows["trial_abuse"])
    rows = rows.set_column(rows.column_names.index("trial_abuse"), "trial_abuse", unknown)
    run_dir = write_run(tmp_path / "run", behaviour_spec(max_epochs=1), rows=rows)

    fit(run_dir)

    curves = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    watched = next(point["value"] for point in curves if point["name"] == WATCHED)
    validated = pq.read_table(run_dir / "predictions.parquet", filters=[("split", "=", "validation")])
    of_fraud = average_precision_score(validated["fraud"].to_numpy(), validated["logit_fraud"].to_numpy())
    assert watched == pytest.approx(of_fraud / 2, rel=1e-4)


def hungry(limit: int, *, evaluated: int = 10_000) -> Callable[[DetectorSpec, Encoder], Network]:
    """A network that runs out of memory above some rows, as a small GPU does."""

    class Hungry(BehaviourNetwork):
        def each(self, batch: dict[str, Tensor]) -> Tensor:
            if len(batch["dense_BD"]) > (limit if self.training else evaluated):
                raise torch.OutOfMemoryError(f"{len(batch['dense_BD'])} rows")
            return super().each(batch)

    return Hungry


def test_out_of_memory_halves_the_micro_batch_and_not_the_global_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = behaviour_spec(dropout=0.0, max_epochs=2)
    ample = write_run(tmp_path / "ample", spec, rows=payments())
    small = write_run(tmp_path / "small", spec, rows=payments())
    fit(ample)

    monkeypatch.setitem(NETWORKS, "behaviour", hungry(40))
    fit(small)

    assert (small / "num_micro_batches").read_text() == "4"
    expected, found = (load_file(run / "bundle" / "model.safetensors") for run in (ample, small))
    assert all(np.allclose(expected[name], found[name], atol=1e-5) for name in expected)


def test_out_of_memory_where_nothing_is_trained_halves_what_is_evaluated_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = behaviour_spec(dropout=0.0, max_epochs=2, global_batch_size=120)
    ample = write_run(tmp_path / "ample", spec, rows=payments())
    small = write_run(tmp_path / "small", spec, rows=payments())
    fit(ample)

    monkeypatch.setitem(NETWORKS, "behaviour", hungry(1000, evaluated=300))
    fit(small)

    assert (small / "num_micro_batches").read_text() == "16"  # 120 rows are taken in 20 parts
    expected, found = (load_file(run / "bundle" / "model.safetensors") for run in (ample, small))
    assert all(np.allclose(expected[name], found[name], atol=1e-5) for name in expected)


def test_out_of_memory_with_one_row_at_a_time_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = write_run(tmp_path / "run", behaviour_spec(max_epochs=1, global_batch_size=4), rows=payments(200))

    monkeypatch.setitem(NETWORKS, "behaviour", hungry(0))

    with pytest.raises(torch.OutOfMemoryError):
        fit(run_dir)


class Killed(BaseException):
    """What ends a fit at once, as a signal would."""


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.parametrize("patience", [None, 1])
@pytest.mark.parametrize("stop", [10, 20, 30, 40])
def test_a_fit_killed_while_it_validates_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, patience: int | None
) -> None:
    """Steps at which it is looked whether to store are the last of their epoch: 600 rows by 60."""
    spec = behaviour_spec(global_batch_size=60, max_epochs=4, patience=patience, learning_rate=0.5)
    whole, killed = (write_run(tmp_path / name, spec, rows=payments(1000)) for name in ("whole", "killed"))
    fit(whole, checkpoint_every_s=0.0)
    validated = DetectorModule.on_validation_epoch_end

    def killing(module: DetectorModule) -> None:
        if module.trainer.global_step == stop:
            raise Killed
        validated(module)

    with monkeypatch.context() as patched:
        patched.setattr(DetectorModule, "on_validation_epoch_end", killing)
        with suppress(Killed):  # with patience it may have stopped before
            fit(killed, checkpoint_every_s=0.0)
    fit(killed, checkpoint_every_s=0.0)

    expected, found = (load_file(run / "bundle" / "model.safetensors") for run in (whole, killed))
    assert all((expected[name] == found[name]).all() for name in expected)
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
