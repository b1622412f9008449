from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings

from feature_repo.compute import compute_days
from feature_repo.lake import Lake, day_of
from feature_repo.view import View
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
