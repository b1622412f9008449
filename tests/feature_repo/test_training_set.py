from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.compute import compute_days
from feature_repo.lake import Lake, day_of
from feature_repo.store import open_store
from feature_repo.training_set import build
from feature_repo.view import HOUR
from feature_repo.windows import SERVICES
from tests.feature_repo import records

MOST_PROTECTED = {
    "p0": (["train", "test"], "test"),
    "p1": (["test", "validation"], "test"),
    "p2": (["train", "validation"], "validation"),
    "p3": (["validation", "calibration"], "calibration"),
    "p4": (["train", None], "train"),
    "p5": (["train", "unused"], "train"),
}


KNOWN = {"events": "payments", "labels": ["fraud", "card_testing"], "feature_service": "payment_v2"}


def labelled(root: Path, labels: Sequence[dict[str, Any]]) -> Lake:
    """A lake of one payment per event that the labels name."""
    payment = {"event_us": records.START, "arrived_us": records.START, "account_id": "a", "ip": None, "card_id": "c"}
    names = sorted({label["event_id"] for label in labels})
    payments = [{**payment, "event_id": name, "merchant_id": "m", "amount": 1.0} for name in names]
    lake = records.write(root / "lake", {"payments": payments, "labels": labels, "accounts": []})
    compute_days(lake, day_of(records.START), day_of(records.START), views=SERVICES["payment_v2"].views)
    return lake


def verdict(event_id: str, hours: int, value: int, **changes: Any) -> dict[str, Any]:
    return records.label_row(event_id, records.START, records.START + hours * HOUR, value, **changes)


def rows_of(root: Path, labels: Sequence[dict[str, Any]]) -> pa.Table:
    build(labelled(root, labels), open_store(root), **KNOWN, out=root / "set")
    return pq.read_table(root / "set" / "data.parquet").sort_by("event_id")


def test_an_event_whose_labels_are_published_in_several_splits_is_in_the_most_protected(tmp_path: Path) -> None:
    labels = [
        verdict(name, 1, 0, label=label, split=split)
        for name, (splits, _) in MOST_PROTECTED.items()
        for label, split in zip(("fraud", "card_testing"), splits, strict=True)
    ]

    rows = rows_of(tmp_path, labels)

    found = dict(zip(rows["event_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    assert found == {name: split for name, (_, split) in MOST_PROTECTED.items()}


def test_a_corrected_verdict_stays_in_the_split_of_its_publisher(tmp_path: Path) -> None:
    published = [verdict("p0", 1, 0, split="test"), verdict("p1", 1, 0, split="unused")]
    others = [verdict(f"q{i}", 1, 0) for i in range(9)]

    rows = rows_of(tmp_path, [*published, *others, verdict("p0", 2, 1), verdict("p1", 2, 1)])

    assert rows.slice(0, 1).select(["event_id", "fraud", "split"]).to_pylist() == [
        {"event_id": "p0", "fraud": 1, "split": "test"}
    ]
    assert "p1" not in rows["event_id"].to_pylist()


def test_without_a_verdict_there_is_no_training_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no event of payments has a verdict on fraud, card_testing"):
        rows_of(tmp_path, [])


def test_a_verdict_keeps_the_probability_of_its_own_draw(tmp_path: Path) -> None:
    drawn = {("p0", "fraud"): 0.01, ("p0", "card_testing"): 0.0, ("p1", "fraud"): 0.5}  # 0: somebody reported it
    labels = [verdict(name, 1, 1, label=label, sampling_probability=p) for (name, label), p in drawn.items()]

    rows = rows_of(tmp_path, labels)

    assert rows["sampling_probability"].to_pylist() == [0.01, 0.5]
    assert rows["sampling_probability_card_testing"].to_pylist() == [0.0, None]
    assert "sampling_probability_fraud" not in rows.column_names


def test_a_verdict_that_is_looked_at_again_keeps_the_probability_of_its_first_draw(tmp_path: Path) -> None:
    reported, drawn = {"sampling_probability": 0.0, "source": "report"}, {"sampling_probability": 0.01}
    appealed = {"sampling_probability": 0.0, "source": "appeal"}
    labels = [verdict("p0", 1, 1, **drawn), verdict("p0", 2, 0)]
    labels += [verdict("p1", 1, 0, **reported), verdict("p1", 2, 1, **drawn), verdict("p1", 3, 0, **appealed)]
    labels += [verdict("p2", 1, 1, **reported), verdict("p2", 2, 0, **appealed)]

    rows = rows_of(tmp_path, labels)

    assert rows["fraud"].to_pylist() == [0, 0, 0]
    assert rows["sampling_probability"].to_pylist() == [0.01, 0.01, 0.0]
