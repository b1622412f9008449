from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_repo.compute import compute_days
from feature_repo.lake import day_of
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


def test_an_event_whose_labels_are_published_in_several_splits_is_in_the_most_protected(tmp_path: Path) -> None:
    payment = {"event_us": records.START, "arrived_us": records.START, "account_id": "a", "ip": None, "card_id": "c"}
    payments = [{**payment, "event_id": name, "merchant_id": "m", "amount": 1.0} for name in MOST_PROTECTED]
    labels = [
        records.label_row(name, records.START, records.START + HOUR, 0, label=label, split=split)
        for name, (splits, _) in MOST_PROTECTED.items()
        for label, split in zip(("fraud", "card_testing"), splits, strict=True)
    ]
    lake = records.write(tmp_path / "lake", {"payments": payments, "labels": labels, "accounts": []})
    compute_days(lake, day_of(records.START), day_of(records.START), views=SERVICES["payment_v2"].views)

    build(
        lake,
        open_store(tmp_path),
        events="payments",
        labels=["fraud", "card_testing"],
        feature_service="payment_v2",
        out=tmp_path / "set",
    )

    rows = pq.read_table(tmp_path / "set" / "data.parquet")
    found = dict(zip(rows["event_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    assert found == {name: split for name, (_, split) in MOST_PROTECTED.items()}


def test_without_a_verdict_there_is_no_training_set(tmp_path: Path) -> None:
    payment = {"event_us": records.START, "arrived_us": records.START, "account_id": "a", "ip": None, "card_id": "c"}
    payments = [{**payment, "event_id": "p0", "merchant_id": "m", "amount": 1.0}]
    lake = records.write(tmp_path / "lake", {"payments": payments, "labels": [], "accounts": []})
    asked = {"events": "payments", "labels": ["fraud", "card_testing"], "feature_service": "payment_v2"}

    with pytest.raises(ValueError, match="no event of payments has a verdict on fraud, card_testing"):
        build(lake, open_store(tmp_path), **asked, out=tmp_path / "set")


def test_a_verdict_keeps_the_probability_of_its_own_draw(tmp_path: Path) -> None:
    payment = {"event_us": records.START, "arrived_us": records.START, "account_id": "a", "ip": None, "card_id": "c"}
    payments = [{**payment, "event_id": name, "merchant_id": "m", "amount": 1.0} for name in ("p0", "p1")]
    drawn = {("p0", "fraud"): 0.01, ("p0", "card_testing"): 0.0, ("p1", "fraud"): 0.5}  # 0: somebody reported it
    labels = [
        records.label_row(name, records.START, records.START + HOUR, 1, label=label, sampling_probability=probability)
        for (name, label), probability in drawn.items()
    ]
    lake = records.write(tmp_path / "lake", {"payments": payments, "labels": labels, "accounts": []})
    compute_days(lake, day_of(records.START), day_of(records.START), views=SERVICES["payment_v2"].views)
    known = {"events": "payments", "labels": ["fraud", "card_testing"], "feature_service": "payment_v2"}

    build(lake, open_store(tmp_path), **known, out=tmp_path / "set")

    rows = pq.read_table(tmp_path / "set" / "data.parquet").sort_by("event_id")
    assert rows["sampling_probability"].to_pylist() == [0.01, 0.5]
    assert rows["sampling_probability_card_testing"].to_pylist() == [0.0, None]
    assert "sampling_probability_fraud" not in rows.column_names
