"""Computes the feature rows of one day from the days that its longest window reaches, and no others."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import text
from feature_repo.lake import DAY_US, Lake, day_of, days_between, start_us
from feature_repo.tables import TABLES
from feature_repo.view import View
from feature_repo.windows import ALL, VIEWS, asked_at

LABEL_DELAY_DAYS = 90  # as in facts_verdicts.sql


def compute_day(lake: Lake, day: date, *, views: Sequence[str] = ALL) -> dict[str, int]:
    """Write the feature rows of a day, and return how many there are per view."""
    return {name: num_rows[day] for name, num_rows in compute_days(lake, day, day, views=views).items()}


def compute_days(lake: Lake, first: date, last: date, *, views: Sequence[str] = ALL) -> dict[str, dict[date, int]]:
    """Write the feature rows of some days in one pass over the facts, and return how many there are per view and day.

    The rows are a function of the lake's events alone, so computing a day again gives the same rows, and after a late
    fact it gives the same rows and the added ones.
    """
    return {name: _compute_view(lake, VIEWS[name], first=first, last=last) for name in views}


def _compute_view(lake: Lake, view: View, *, first: date, last: date) -> dict[date, int]:
    with lake.connect() as connection:
        bound_tables(connection, lake, view, first=first, last=last)
        end_us = start_us(last) + DAY_US
        moments = text.moments(view, tables=asked_at(view), first_us=start_us(first), end_us=end_us)
        connection.execute(f"CREATE TEMP TABLE moments AS {moments}")
        rows = stamped(evaluate(connection, view))
    return {day: _write_day(lake, view, rows, day=day) for day in days_between(first, last)}


def _write_day(lake: Lake, view: View, rows: pa.Table, *, day: date) -> int:
    event_us = rows["event_us"]
    is_of_day = pc.and_(pc.greater_equal(event_us, start_us(day)), pc.less(event_us, start_us(day) + DAY_US))
    of_day = rows.filter(is_of_day)
    if of_day.num_rows:
        written = lake.write("features", view.name, of_day, day=day)
        for other in written.parent.glob("*.parquet"):
            if other != written:  # what Spark wrote of the day before
                other.unlink()
    else:
        lake.remove("features", view.name, day)
    return int(of_day.num_rows)


def features_at(lake: Lake, view: View, moments: Sequence[tuple[str | None, int]]) -> list[dict[str, Any]]:
    """f(entity, t) for any moments, in their order, by what was known then; all null where there is no entity."""
    asked = pa.table({"entity": pa.array([e for e, _ in moments], pa.string()), "us": [us for _, us in moments]})
    with lake.connect() as connection:
        days = [day_of(us) for _, us in moments]
        bound_tables(connection, lake, view, first=min(days), last=max(days))
        connection.register("asked", asked)
        connection.execute("CREATE TEMP TABLE moments AS SELECT DISTINCT * FROM asked WHERE entity NOTNULL")
        connection.execute("CREATE TEMP TABLE points AS SELECT *, us AS created FROM moments")
        connection.execute(f"CREATE TEMP TABLE facts AS {text.near(view, text.facts(view))}")
        rows = connection.sql(text.features(view)).to_arrow_table().to_pylist()
    names = [feature.name for feature in view.features]
    found = {(row[view.entity], row["event_us"]): {name: row[name] for name in names} for row in rows}
    return [found.get(moment, dict.fromkeys(names)) for moment in moments]


def evaluate(connection: duckdb.DuckDBPyConnection, view: View) -> pa.Table:
    """The features of a view at the `moments` (entity, us) of a connection, one row per moment and late fact."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE facts AS {text.near(view, text.facts(view))}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE points AS {text.points(view)}")
    return connection.sql(text.features(view)).to_arrow_table()


def bound_tables(connection: duckdb.DuckDBPyConnection, lake: Lake, view: View, *, first: date, last: date) -> None:
    """Let the tables of a connection show only the days that a view needs to answer from `first` to `last`."""
    start = first_needed(view, first)
    for table in TABLES:
        connection.execute(f"CREATE OR REPLACE VIEW {table} AS {lake.select('events', table, first=start, last=last)}")


def first_needed(view: View, first: date) -> date | None:
    """The first day of events that a view needs to answer on a day; None: all there are."""
    if not view.reach_us:
        return None
    return first - timedelta(days=-(-view.reach_us // DAY_US)) - _delay(view)


def _delay(view: View) -> timedelta:
    """How long after an event the facts about it may still come up."""
    return timedelta(days=LABEL_DELAY_DAYS if view.is_of_verdicts else 0)


def stamped(rows: pa.Table) -> pa.Table:
    """The rows with the two timestamps that Feast reads: when it was so, and since when that is known."""
    utc = pa.timestamp("us", tz="UTC")
    event_timestamp, created = rows["event_us"].cast(utc), rows["created_us"].cast(utc)
    return rows.append_column("event_timestamp", event_timestamp).append_column("created", created)


def touched_days(lake: Lake, first: date, last: date, view: View) -> list[date]:
    """The later days with feature rows whose windows reach into some days: what came late to these changes those.

    A payment that came late also changes the days that a verdict about it reaches.
    """
    later = [day for day in lake.days("features", view.name) if day > last]
    if not later:
        return []
    with lake.connect() as connection:
        bound_tables(connection, lake, view, first=first, last=last + _delay(view))
        bounds = f"BETWEEN {start_us(first)} AND {start_us(last) + DAY_US - 1}"
        query = f"SELECT max(us) FROM ({text.facts(view)}) WHERE us {bounds}"  # noqa: S608
        if view.is_of_verdicts:
            query += f" OR event_id IN (SELECT event_id FROM payments WHERE event_us {bounds})"  # noqa: S608
        [(last_us,)] = connection.execute(query).fetchall()
    if last_us is None:
        return []
    return [day for day in later if not view.reach_us or day <= day_of(last_us + view.reach_us)]
