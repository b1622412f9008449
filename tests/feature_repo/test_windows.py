from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import compute, text
from feature_repo.lake import DAY_US, Lake, start_us
from feature_repo.tables import TABLES
from feature_repo.view import DAY, HOUR, MINUTE, exact
from feature_repo.windows import VIEWS
from tests.feature_repo.brute_force import features

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()) * 1_000_000
OFFSETS = st.sampled_from(
    [0, 1, MINUTE, HOUR - 1, HOUR, HOUR + 1, DAY, DAY + MINUTE, 7 * DAY, 7 * DAY + HOUR, 29 * DAY]
)
FACT = st.fixed_dictionaries(
    {
        "entity": st.sampled_from(["a", "b"]),
        "back_us": OFFSETS | st.integers(-HOUR, 31 * DAY),
        "late_us": st.just(0) | st.integers(1, 3 * DAY),
        "value": st.none() | st.sampled_from(["x", "y", "z"]),
        "amount": st.integers(0, 10**9),
    }
)
POINTS = st.lists(st.tuples(OFFSETS, st.integers(0, 3 * DAY)), min_size=1, max_size=5)


@pytest.mark.parametrize("name", [name for name, view in VIEWS.items() if view.template == "windows"])
@pytest.mark.parametrize("is_exact", [False, True])
@settings(max_examples=12, deadline=None)
@given(facts=st.lists(FACT, max_size=25), points=POINTS)
def test_the_sql_text_equals_plain_loops(name: str, is_exact: bool, facts: list, points: list) -> None:
    view = exact(VIEWS[name]) if is_exact else VIEWS[name]
    rows = [
        {
            "entity": f["entity"],
            "us": NOON - f["back_us"],
            "known_us": NOON - f["back_us"] + f["late_us"],
            "event_id": str(number),
            **dict.fromkeys(view.sums, f["amount"]),
            **dict.fromkeys(view.values, f["value"]),
        }
        for number, f in enumerate(facts)
    ]
    asked = {("a", NOON - back, NOON - back + later) for back, later in points} | {("nobody", NOON, NOON)}

    got = evaluate(view, rows, asked)

    for (entity, us, created), answer in got.items():
        assert answer == features(view, [r for r in rows if r["entity"] == entity], at_us=us, created_us=created)
    assert set(got) == asked


def evaluate(view, rows, asked):
    columns = {"entity": pa.string(), "us": pa.int64(), "known_us": pa.int64(), "event_id": pa.string()}
    columns |= {column: pa.int64() for column in view.sums} | {column: pa.string() for column in view.values}
    with duckdb.connect() as connection:
        connection.register("given", pa.Table.from_pylist(rows, schema=pa.schema(columns)))
        points = [{"entity": e, "us": us, "created": created} for e, us, created in asked]
        connection.register("points", pa.Table.from_pylist(points))
        connection.execute("CREATE TEMP VIEW moments AS SELECT DISTINCT entity, us FROM points")
        connection.execute(f"CREATE TEMP TABLE facts AS {text.near(view, 'SELECT * FROM given')}")
        answers = connection.sql(text.features(view)).to_arrow_table().to_pylist()
    return {(a.pop(view.entity), a.pop("event_us"), a.pop("created_us")): a for a in answers}


def request(event_id: str, us: int, *, arrived_us: int | None = None) -> dict[str, object]:
    return {
        "event_id": event_id,
        "event_us": us,
        "arrived_us": us if arrived_us is None else arrived_us,
        "account_id": "a",
        "ip": "i",
        "kind": "prompt",
        "text": "hello",
        "num_tokens": 3,
    }


def account(event_id: str, us: int) -> dict[str, object]:
    return {"event_id": event_id, "event_us": us, "arrived_us": us, "account_id": "a", "kind": "daily", "ip": "i"}


def write(lake: Lake, table: str, rows: list[dict[str, object]], day: date) -> None:
    types = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "INTEGER": pa.int32(), "DOUBLE": pa.float64()}
    schema = pa.schema({name: types[column.type] for name, column in TABLES[table].columns.items()})
    lake.write("events", table, pa.Table.from_pylist(rows, schema=schema), day=day)


def activity(lake: Lake, day: date) -> list[dict[str, object]]:
    rows = lake.folder("features", "account_activity", day) / "part.parquet"
    return duckdb.read_parquet(str(rows)).order("created").to_arrow_table().to_pylist()


def test_a_late_fact_adds_a_row_that_was_not_known_at_the_event(tmp_path: Path) -> None:
    lake, day = Lake(tmp_path), date(2026, 3, 10)
    write(lake, "accounts", [account("now", NOON)], day)
    write(lake, "requests", [request("late", NOON - HOUR // 2, arrived_us=NOON + 3 * DAY)], day)

    compute.compute_day(lake, day)

    rows = activity(lake, day)
    assert [(r["created_us"], r["num_requests_1h"]) for r in rows] == [(NOON, 0), (NOON + 3 * DAY, 1)]


def test_computing_days_at_once_equals_computing_each_alone(tmp_path: Path) -> None:
    lake, days = Lake(tmp_path), [date(2026, 3, 9), date(2026, 3, 10)]
    for number, day in enumerate(days):
        at_us = start_us(day) + DAY_US // 2
        write(lake, "accounts", [account(f"a{number}", at_us)], day)
        write(lake, "requests", [request(f"r{number}", at_us - HOUR)], day)

    compute.compute_days(lake, *days)
    at_once = [activity(lake, day) for day in days]
    for day in days:
        compute.compute_day(lake, day)

    assert [activity(lake, day) for day in days] == at_once
    assert at_once[1][0]["num_requests_7d"] == 2
