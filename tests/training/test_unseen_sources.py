from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.runs import generated_spec, write_stored_run
from training import predictions
from training.detector import DetectorSpec
from training.launch import launch
from training.unseen_sources import check, measure_unseen_sources, train_folds

SOURCES = ["org/a", "org/b", "..", "rare"]


def sourced_run(run_dir: Path, spec: DetectorSpec, sources: list[str] | None) -> Path:
    """A stored run whose rows are from these sources, the last of them in five rows alone."""
    write_stored_run(run_dir, spec)
    for name in ("training_set.parquet", "predictions.parquet"):
        rows = pq.read_table(run_dir / name)
        if sources:
            at = np.arange(len(rows)) % max(1, len(sources) - 1)
            at[-5:] = len(sources) - 1
            rows = rows.append_column("source", pa.array(np.array(sources)[at]))
        pq.write_table(rows, run_dir / name)
    return run_dir


def test_a_source_is_measured_by_its_own_name_and_said_not_to_be_where_it_cannot(tmp_path: Path) -> None:
    spec = generated_spec(unseen_sources=SOURCES)
    run_dir = sourced_run(tmp_path / "run", spec, SOURCES)
    trained = []

    def train(fold: Path) -> None:
        trained.append(fold)
        kept = pq.read_table(fold / "training_set.parquet")["event_id"].to_pylist()
        rows = pq.read_table(run_dir / "predictions.parquet", filters=[("event_id", "in", kept)])
        pq.write_table(rows, fold / "predictions.parquet")

    check(run_dir)
    train_folds(run_dir, train=train)
    found = measure_unseen_sources(run_dir, spec, predictions.read(run_dir, spec).of("test"))

    assert {fold.parent for fold in trained} == {run_dir / "unseen"}
    assert len(set(trained)) == len(SOURCES)
    assert [(one.source, one.label) for one in found] == [(s, label) for s in SOURCES for label in spec.labels]
    for one in found:
        assert one.why == ("fewer than 20 violations" if one.source == "rare" else None)
        assert (one.average_precision is None) == (one.source == "rare")


def test_a_source_without_a_fold_is_said_not_to_be_measured(tmp_path: Path) -> None:
    spec = generated_spec(unseen_sources=["org/a"])
    run_dir = sourced_run(tmp_path / "run", spec, SOURCES)

    found = measure_unseen_sources(run_dir, spec, predictions.read(run_dir, spec).of("test"))

    assert [one.why for one in found] == ["no fold was trained"] * len(spec.labels)


@pytest.mark.parametrize(
    ("asked", "sources", "reason"),
    [
        ("typo", ["a", "b"], r"'typo'\] are not among the sources of the training set, \['a', 'b'\]"),
        ("only", ["only"], "without 'only', of .'only'., no row is left in train, validation, calibration"),
        ("a", None, "no column 'source'"),
    ],
)
def test_a_source_that_cannot_be_left_out_is_named_before_anything_is_trained(
    asked: str, sources: list[str] | None, reason: str, tmp_path: Path
) -> None:
    run_dir = sourced_run(tmp_path / "run", generated_spec(unseen_sources=[asked]), sources)
    reported: list[str] = []

    with pytest.raises(ValueError, match=rf"detector\.unseen_sources is \['{asked}'\]; .*{reason}"):
        launch(run_dir, report=reported.append)

    assert reported == []
