"""What a day of a table usually looks like, by the days before it: how much, how fresh, and spread how."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb

from feature_repo.lake import literal
from feature_repo.tables import Column, Table

NUM_DAYS = 7  # that a day is compared with
# Below these the usual is not known well enough to call a day unusual.
_MIN_DAYS, _MIN_ROWS = 3, 100
_NUM_BINS = 10
_READ = "hive_partitioning = true, union_by_name = true"
HOUR_US = 3_600_000_000


def spread_columns(table: Table) -> list[str]:
    """The columns whose values should fall about as on the days before; verdicts come in waves and need not."""
    return [] if table.name == "labels" else [name for name, column in table.columns.items() if _has_spread(column)]


def lay(  # all of it says which days are compared with which
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    files: Sequence[Path],
    *,
    moment: str,
    days: list[date],
    today: date,
) -> None:
    """Create the view `volumes` and the table `spreads`, one row per day from the first to the last of some days.

    `files` are those of the days and of the ones before. A day that is not over arrives piece by piece: it can hold too
    much already, but not yet too little, and its newest event says nothing.
    """
    names = ", ".join(dict.fromkeys([moment, *spread_columns(table)]))
    earliest = f"day={min(days) - timedelta(2 * NUM_DAYS)}"
    listed = ", ".join(literal(str(file)) for file in files if file.parent.name >= earliest)
    recent = f"SELECT CAST(day AS DATE) AS day, {names} FROM read_parquet([{listed}], {_READ})"  # noqa: S608
    connection.execute(f"CREATE VIEW recent AS {recent}")
    wanted = f"day BETWEEN '{min(days)}' AND '{max(days)}'"
    connection.execute(f"CREATE VIEW volumes AS SELECT * FROM ({_volumes(moment, today)}) WHERE {wanted}")  # noqa: S608
    spreads = [f"({_spread(connection, name, table.columns[name])}) AS {name}_spread" for name in spread_columns(table)]
    joins = " ".join(f"LEFT JOIN {spread} USING (day)" for spread in spreads)
    moved = ", ".join(["day", *(f"{name}_moved" for name in spread_columns(table))])
    connection.execute(f"CREATE TABLE spreads AS SELECT {moved} FROM volumes {joins}")  # noqa: S608


def _has_spread(column: Column) -> bool:
    return bool(column.values) or column.type in ("DOUBLE", "INTEGER")


def _volumes(moment: str, today: date) -> str:
    """Rows of each day as a multiple of the usual, and how much earlier than usual its newest event lies."""
    return f"""
        WITH counted AS (
          SELECT day, count(*) AS num_rows, max({moment} - epoch_us(CAST(day AS TIMESTAMP))) AS newest_us
          FROM recent GROUP BY day
        ), usual AS (
          SELECT *, median(num_rows) OVER before AS usual, count(*) OVER before AS num_days,
                 median(newest_us) OVER before AS usually_newest_us
          FROM counted WINDOW before AS (ORDER BY day ROWS BETWEEN {NUM_DAYS} PRECEDING AND 1 PRECEDING)
        )
        SELECT day, num_rows, usual,
               CASE WHEN num_days < {_MIN_DAYS} OR usual < {_MIN_ROWS} THEN NULL
                    WHEN day >= DATE '{today}' THEN greatest(num_rows / usual, 1)
                    ELSE num_rows / usual END AS times_usual,
               CASE WHEN num_days >= {_MIN_DAYS} AND usual >= {_MIN_ROWS} AND day < DATE '{today}'
                    THEN (usually_newest_us - newest_us) / {HOUR_US} END AS hours_stale
        FROM usual
    """  # noqa: S608


def _spread(connection: duckdb.DuckDBPyConnection, name: str, column: Column) -> str:
    """The share of a day's rows that would have to change their bin to lie as on the days before (total variation).

    A bin is a value of a closed set, or a tenth of all values.
    """
    bin_ = f"coalesce({name}, '')"
    if not column.values:
        tenths = [i / _NUM_BINS for i in range(1, _NUM_BINS)]
        quantiles = f"SELECT quantile_disc({name}, {tenths}) FILTER (isfinite({name})) FROM recent"  # noqa: S608
        [(cuts,)] = connection.execute(quantiles).fetchall()
        bin_ = " + ".join(f"CAST({name} > {cut} AS INTEGER)" for cut in cuts or [0])
    return f"""
        WITH bins AS (
          SELECT *, sum(num) OVER (PARTITION BY day) AS total
          FROM (SELECT day, {bin_} AS bin, count(*) AS num FROM recent GROUP BY ALL)
        ), days AS (
          SELECT day, any_value(total) AS total FROM bins GROUP BY day
        ), spans AS (
          SELECT days.day, count(*) AS num_days FROM days
          JOIN days AS d ON d.day < days.day AND d.day >= days.day - {NUM_DAYS} GROUP BY ALL
        ), before AS (
          SELECT days.day, bins.bin, sum(bins.num) AS num FROM days
          JOIN bins ON bins.day < days.day AND bins.day >= days.day - {NUM_DAYS} GROUP BY ALL
        ), totals AS (
          SELECT day, sum(num) AS total, any_value(num_days) AS num_days FROM before JOIN spans USING (day) GROUP BY day
        ), pairs AS (
          SELECT day, coalesce(bins.num / bins.total, 0) - coalesce(before.num / totals.total, 0) AS difference
          FROM before JOIN totals USING (day) FULL JOIN bins USING (day, bin)
        )
        SELECT day, CASE WHEN min(days.total) >= {_MIN_ROWS} AND min(totals.total) >= {_MIN_DAYS * _MIN_ROWS}
                              AND min(totals.num_days) >= {_MIN_DAYS}
                         THEN sum(abs(difference)) / 2 END AS {name}_moved
        FROM pairs JOIN days USING (day) JOIN totals USING (day) GROUP BY day
    """  # noqa: S608
