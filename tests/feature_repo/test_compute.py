from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings

from feature_repo.compute import compute_days, touched_days
from feature_repo.lake import Lake, day_of
from feature_repo.view import DAY, View
from feature_repo.windows import ALL, VIEWS
from tests.feature_repo import records, reference


def _computed(lake: Lake, view: View) -> dict[tuple[str, int, int], dict[str, Any]]:
    rows = {}
    for day in lake.days("features", view.name):
        for row in pq.ParquetFile(lake.folder("features", view.name, day) / "part.parquet").read().to_pylist():
            key = (row[view.entity], row["event_us"], row["created_us"])
            assert key not in rows
            assert day_of(row["event_us"]) == day
            rows[key] = {feature.name: row[feature.name] for feature in view.features}
    return rows


def _event_days(lake: Lake) -> list[Any]:
    return sorted({day for table in ("requests", "payments", "accounts") for day in lake.days("events", table)})


@given(tables=records.tables())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_cell_equals_the_brute_force_reference(tables: dict[str, list[dict[str, Any]]]) -> None:
    with TemporaryDirectory() as folder:
        lake = records.write(Path(folder), tables)

        days = _event_days(lake)
        if days:
            compute_days(lake, days[0], days[-1])

        for name in ALL:
            assert _computed(lake, VIEWS[name]) == reference.rows_of(VIEWS[name], tables), name


def test_a_payment_that_came_after_its_verdict_adds_rows_to_the_days_that_the_verdict_reaches(tmp_path: Path) -> None:
    def payment(event_id: str, event_us: int, arrived_us: int) -> dict[str, Any]:
        ids = {"account_id": "a", "card_id": None, "merchant_id": "m", "ip": None}
        return {"event_id": event_id, "event_us": event_us, "arrived_us": arrived_us, "amount": 1.0, **ids}

    asked_us, arrived_us = records.START + 5 * DAY, records.START + 10 * DAY
    asking, late = payment("asks", asked_us, asked_us), payment("late", records.START, arrived_us)
    verdict = records.label_row("late", records.START, records.START + 3 * DAY, 1)
    lake, view = records.write(tmp_path, {"payments": [asking], "labels": [verdict]}), VIEWS["merchant_frauds"]
    first, asked = day_of(records.START), day_of(asked_us)
    compute_days(lake, first, asked, views=[view.name])

    lake.write("events", "payments", records.to_arrow("payments", [late]), day=first)
    [touched] = touched_days(lake, first, first, view)
    compute_days(lake, touched, touched, views=[view.name])

    found = {key: row["num_frauds_30d"] for key, row in _computed(lake, view).items()}
    assert (touched, found) == (asked, {("m", asked_us, asked_us): 0, ("m", asked_us, arrived_us): 1})
