"""Which rows an epoch shows, and what they stand for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import behaviour_spec, payments, write_run
from training.data import DetectorData, EpochRows

LABELS = (np.arange(1_000) % 50 == 0).astype(np.float32)[:, None]  # 20 violations


@given(per_positive=st.none() | st.integers(1, 80), epoch=st.integers(0, 9))
def test_an_epoch_shows_every_violation_once_and_others_up_to_the_limit(per_positive: int | None, epoch: int) -> None:
    rows = EpochRows.of(LABELS, per_positive)

    shown = rows.draw(7, epoch)

    assert len(shown) == len(rows) == len(set(shown)) == min(1_000, 20 + 20 * (per_positive or 80))
    assert set(np.flatnonzero(LABELS)) <= set(shown)


def test_epochs_draw_other_rows_and_a_repeated_epoch_the_same() -> None:
    rows = EpochRows.of(LABELS, 10)

    epochs = [rows.draw(7, epoch) for epoch in range(40)]

    assert rows.draw(7, 0).tolist() == epochs[0].tolist()
    assert len(set(epochs[0]) - set(epochs[1])) > 100
    assert len(set(np.concatenate(epochs))) == 1_000


def test_without_a_violation_all_rows_are_shown() -> None:
    assert len(EpochRows.of(np.zeros_like(LABELS), 10)) == 1_000


def test_what_is_drawn_weighs_as_much_as_what_it_stands_for(tmp_path: Path) -> None:
    spec, every = behaviour_spec(negatives_per_positive=1), behaviour_spec()
    path = write_run(tmp_path / "run", spec, rows=payments(600)) / "training_set.parquet"
    data, whole = (DetectorData(path, one, cache=tmp_path) for one in (spec, every))
    is_negative = (whole.train.labels != 1).all(axis=1)

    shown = data.rows.draw(7, 0)
    drawn = shown[is_negative[shown]]

    assert len(drawn) == (~is_negative).sum() < is_negative.sum()
    scale = data.train.weights[drawn] / whole.train.weights[drawn]
    assert scale * len(drawn) == pytest.approx(np.full(len(drawn), is_negative.sum()), rel=1e-5)


def test_a_row_that_was_not_drawn_with_a_known_probability_weighs_1(tmp_path: Path) -> None:
    rows = payments(600)
    probabilities = pa.array([0.0, None, 0.5, 0.01, 1.0, 1.0] * 100, pa.float64())
    rows = rows.set_column(rows.column_names.index("sampling_probability"), "sampling_probability", probabilities)
    path = write_run(tmp_path / "run", behaviour_spec(), rows=rows) / "training_set.parquet"

    weights = DetectorData(path, behaviour_spec(), cache=tmp_path).train.weights

    assert weights.reshape(-1, 6).tolist() == [[1, 1, 2, 10, 1, 1]] * 60


def test_how_flat_a_labels_loss_is_does_not_depend_on_how_many_rows_an_epoch_shows(tmp_path: Path) -> None:
    spec, every = behaviour_spec(negatives_per_positive=1), behaviour_spec()
    rows = payments(600)
    path = write_run(tmp_path / "run", spec, rows=rows) / "training_set.parquet"
    data, whole = (DetectorData(path, one, cache=tmp_path) for one in (spec, every))
    known, violated = (
        whole.train.weights[:, None] * is_it for is_it in (whole.train.labels >= 0, whole.train.labels == 1)
    )
    shares = violated.sum(0) / known.sum(0)

    assert np.array(whole.curvature) == pytest.approx(known.mean(0) * shares * (1 - shares), rel=1e-4)
    assert np.multiply(data.curvature, len(data.rows)) == pytest.approx(np.multiply(whole.curvature, len(whole.rows)))


def test_sources_that_are_not_told_are_not_weighed(tmp_path: Path) -> None:
    spec = behaviour_spec(source_power=0.5)
    path = write_run(tmp_path / "run", spec, rows=payments(600)) / "training_set.parquet"

    with pytest.raises(ValueError, match=r"fit.source_power is 0.5; the training set has no column 'source'"):
        DetectorData(path, spec, cache=tmp_path)


def test_a_source_weighs_by_the_power_of_its_rows(tmp_path: Path) -> None:
    rows = payments(600)
    sources = np.where(np.arange(len(rows)) % 10 == 0, "small", "large")
    rows = rows.append_column("source", pa.array(sources))
    spec = behaviour_spec(source_power=0.5)
    path = write_run(tmp_path / "run", spec, rows=rows) / "training_set.parquet"

    weights = DetectorData(path, spec, cache=tmp_path).train.source_weights
    train = pq.read_table(path, filters=[("split", "=", "train")])["source"].to_numpy()
    sums = {name: float(weights[train == name].sum()) for name in ("small", "large")}

    sizes = {name: int((train == name).sum()) for name in sums}
    assert sums["large"] / sums["small"] == pytest.approx((sizes["large"] / sizes["small"]) ** 0.5, rel=1e-4)
    assert sum(sums.values()) == pytest.approx(len(train), rel=1e-4)
