from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow.compute as pc
import pytest

from feature_repo.lake import DAY_US, Lake, days_between
from feature_repo.tables import TABLES
from orchestration import runs
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.lake import lake_table
from tests.orchestration.conftest import FIRST, payments

WEEK = days_between(FIRST, FIRST + timedelta(days=6))
NEXT = FIRST + timedelta(days=7)
LAKE = ["lake/requests", "lake/payments", "lake/accounts", "lake/labels"]
CHAIN = [*LAKE, "features/card_activity"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path))
    monkeypatch.setenv("MEWS_FIRST_DAY", FIRST.isoformat())
    return Settings.from_environment()


def materialized(settings: Settings, key: str) -> set[str]:
    with runs.open_instance(settings) as instance:
        return instance.get_materialized_partitions(dg.AssetKey.from_user_string(key))


def files(lake: Lake, zone: str) -> dict[str, int]:
    return {str(f): f.stat().st_mtime_ns for f in (lake.root / zone).rglob("*.parquet")}


def test_a_poisoned_day_changes_nothing_downstream_and_the_next_good_batch_flows(
    settings: Settings, lake: Lake, arrive: Callable[..., None]
) -> None:
    for day in WEEK:
        arrive(day)
    assert runs.materialize(settings, CHAIN, first=WEEK[0], last=WEEK[-1]).is_success
    before = files(lake, "events") | files(lake, "features")
    arrive(NEXT, payments(NEXT, 2000))

    refused = runs.materialize(settings, CHAIN, first=NEXT)

    assert not refused.is_success
    assert "times_usual" in refused.reason
    assert files(lake, "events") | files(lake, "features") == before
    assert materialized(settings, "lake/payments") == {day.isoformat() for day in WEEK}
    arrive(NEXT)
    assert runs.materialize(settings, CHAIN, first=NEXT).is_success
    assert lake.days("features", "card_activity") == [*WEEK, NEXT]


def test_a_range_of_days_is_one_run_and_only_its_good_days_count(
    settings: Settings, lake: Lake, arrive: Callable[..., None]
) -> None:
    for day in WEEK:
        arrive(day, payments(day).drop_columns(["amount"]) if day == WEEK[2] else None)

    result = runs.materialize(settings, LAKE, first=WEEK[0], last=WEEK[-1])

    assert not result.is_success
    assert materialized(settings, "lake/payments") == {day.isoformat() for day in WEEK} - {WEEK[2].isoformat()}
    assert materialized(settings, "lake/requests") == set()
    with runs.open_instance(settings) as instance:
        assert len(instance.get_runs()) == 1


def test_a_run_for_another_home_is_refused(settings: Settings, tmp_path: Path) -> None:
    other = Settings(home=tmp_path / "other")

    with pytest.raises(ValueError, match="MEWS_HOME"):
        runs.materialize(other, LAKE, first=date(2026, 1, 1))


def test_a_late_batch_recomputes_just_the_days_that_see_its_facts(
    settings: Settings, lake: Lake, arrive: Callable[..., None]
) -> None:
    long = days_between(FIRST, FIRST + timedelta(days=10))
    for day in long:
        arrive(day)
    assert runs.materialize(settings, CHAIN, first=long[0], last=long[-1]).is_success
    before = files(lake, "features")
    late = payments(FIRST, 40, prefix="late")
    arrived_us = pc.add(late["event_us"], 3 * DAY_US)
    late = late.set_column(late.column_names.index("arrived_us"), "arrived_us", arrived_us)
    lake.write("inbox", "payments", late, day=FIRST, name="late")

    result = runs.materialize(settings, CHAIN, first=FIRST)

    assert result.is_success, result.reason
    changed = {path.split("day=")[1][:10] for path, at_ns in files(lake, "features").items() if before[path] != at_ns}
    assert changed == {day.isoformat() for day in long[:9]}  # facts of just before midnight, seven days and a grain
    assert changed <= recomputed(settings, "features/card_activity", result.run_id)
    rows = duckdb.read_parquet(str(lake.folder("features", "card_activity", long[2]) / "*.parquet"))
    assert rows.filter("created_us > event_us").limit(1).fetchall()


def test_no_two_runs_take_in_the_same_table_at_once(settings: Settings) -> None:
    tables = [lake_table(table, days.partitions(settings)) for table in TABLES.values()]

    assert [table.op.pool for table in tables] == [f"lake_{name}" for name in TABLES]


def recomputed(settings: Settings, key: str, run_id: str) -> set[str]:
    with runs.open_instance(settings) as instance:
        records = instance.fetch_materializations(dg.AssetKey.from_user_string(key), limit=100).records
    return {str(r.partition_key) for r in records if r.run_id == run_id}
