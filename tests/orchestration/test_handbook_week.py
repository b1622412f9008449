"""The handbook's week: the payments that are judged are those that its own procedure keeps."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.lake import DAY_US, Lake, start_us
from orchestration.handbook_week import judge, judged_payments

FIRST, NUM_DAYS, NUM_CARDS = date(2018, 7, 25), 24, 40


@pytest.fixture(scope="module")
def payments() -> list[dict[str, object]]:
    generator = np.random.default_rng(3)
    rows = []
    for number in range(800):
        day = int(generator.integers(-3, NUM_DAYS))
        card = f"c{generator.integers(0, NUM_CARDS)}"
        us = start_us(FIRST) + day * DAY_US + int(generator.integers(0, DAY_US))
        rows.append({"id": f"p{number}", "day": day, "card": card, "us": us, "fraud": bool(generator.random() < 0.04)})
    return rows


@pytest.fixture(scope="module")
def lake(payments: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for day in range(-3, NUM_DAYS):
        of_day = [row for row in payments if row["day"] == day]
        ids, moments = [row["id"] for row in of_day], pa.array([row["us"] for row in of_day], pa.int64())
        nothing = pa.nulls(len(of_day), pa.string())
        facts = {"event_id": ids, "event_us": moments, "arrived_us": moments}
        events = {**facts, "account_id": nothing, "card_id": [row["card"] for row in of_day], "merchant_id": nothing}
        events |= {"ip": nothing, "amount": pa.array([1.0] * len(of_day))}
        lake.write("events", "payments", pa.table(events), day=FIRST + timedelta(days=day))
        known = {"known_us": moments, "value": pa.array([int(bool(row["fraud"])) for row in of_day], pa.int8())}
        said = {"event_table": ["payments"] * len(of_day), "label": ["fraud"] * len(of_day), "source": nothing}
        labels = {"event_id": ids, "event_us": moments, **known, **said, "split": nothing}
        labels |= {"sampling_probability": pa.array([1.0] * len(of_day))}
        lake.write("events", "labels", pa.table(labels), day=FIRST + timedelta(days=day))
    return lake


def kept_by_the_handbook(payments: list[dict[str, object]]) -> set[object]:
    """Its `get_train_test_set`, in plain words: seven days train, seven pass, seven are judged one by one."""
    known = {row["card"] for row in payments if row["fraud"] and 0 <= int(str(row["day"])) < 7}
    kept: set[object] = set()
    for day in range(7):
        known |= {row["card"] for row in payments if row["fraud"] and row["day"] == 7 + day - 1}
        kept |= {row["id"] for row in payments if row["day"] == 14 + day and row["card"] not in known}
    return kept


def test_cards_whose_fraud_was_known_are_not_judged(lake: Lake, payments: list[dict[str, object]]) -> None:
    judged = judged_payments(lake, FIRST + timedelta(days=14))

    assert set(judged["event_id"].to_pylist()) == kept_by_the_handbook(payments)
    assert 0 < judged.num_rows < sum(14 <= int(str(row["day"])) < 21 for row in payments)


def test_the_truth_as_a_score_is_judged_perfect(lake: Lake) -> None:
    judged = judged_payments(lake, FIRST + timedelta(days=14))

    found = judge(judged, np.array(judged["is_fraud"]).astype(np.float64))

    assert found.auc.value == found.average_precision.value == 1
    assert found.num_frauds == int(np.array(judged["is_fraud"]).sum()) > 0
    assert 0 < found.card_precision.value < 0.1  # a hundred cards are asked for every day, and few are defrauded
