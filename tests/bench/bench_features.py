"""Window features: right against the handbook and plain loops, and what they cost against the plain SQL for them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from feature_repo import text
from feature_repo.compute import compute_day, compute_days
from feature_repo.lake import Lake, day_of, days_between
from feature_repo.tables import REQUESTS
from feature_repo.view import DAY
from feature_repo.windows import VIEWS
from tests.bench import features_at_size, features_that_leak, handbook
from tests.bench.harness import DATA, IS_SMALL, cost, interleave, median_ratio, report
from tests.feature_repo.brute_force import features

LIMITS = {
    "wrong_cells": "= 0",
    "handbook_wrong_cells": "= 0",
    "distinct_vs_naive_cpu": "<= 0.4",
    "growth_10x_cpu": "<= 9",
    "incremental_day_share": "<= 0.10",
    "spark_diff_rows": "= 0",
    "feast_vs_asof_cpu": "<= 1.25",
    "events_50m_peak_gb": "<= 8",
    "leaks_found_of_12": "= 12",
    "leak_false_alarms": "= 0",
}
START = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC
NUM_DAYS = 60
NUM_EVENTS = 200_000 if IS_SMALL else 10_000_000
NUM_POINTS = 2_000 if IS_SMALL else 100_000
NUM_CHECKED = 500 if IS_SMALL else 20_000
ACTIVITY = VIEWS["account_activity"]

# Accounts are skewed: the busiest has about one event in a hundred.
_EVENTS = """
    SELECT 'e' || i AS event_id, {start} + (hash(i) % {span})::BIGINT AS us, us AS known_us, 'a' || place AS entity,
        'i' || (hash(i + 2) % 5 + place % 1000) AS ip, (hash(i + 3) % 900)::BIGINT AS num_tokens
    FROM (SELECT i, floor(pow(hash(i + 1) / 18446744073709551616.0, 3) * {accounts})::BIGINT AS place
          FROM range({num}) AS t(i))
"""
_NAIVE = """
    SELECT p.entity, p.us,
        count(f.us) FILTER (WHERE f.us >= p.us - 3600000000), count(f.us) FILTER (WHERE f.us >= p.us - 86400000000),
        count(f.us), sum(f.num_tokens) FILTER (WHERE f.us >= p.us - 86400000000), sum(f.num_tokens),
        count(DISTINCT f.ip) FILTER (WHERE f.us >= p.us - 86400000000), count(DISTINCT f.ip), p.us - max(f.us)
    FROM {points} AS p LEFT JOIN {facts} AS f ON p.entity = f.entity AND f.us < p.us AND f.us >= p.us - 604800000000
    GROUP BY p.entity, p.us
"""


def main() -> None:
    """Measure, print and keep the figures."""
    with duckdb.connect(config={"memory_limit": "8GB"}) as connection:
        figures: dict[str, object] = {"wrong_cells": wrong_cells(connection)}
        figures["handbook_wrong_cells"] = handbook_wrong_cells()
        few, many = _tables(connection, NUM_EVENTS // 10), _tables(connection, NUM_EVENTS)
        costs = interleave(
            {
                "tenth": lambda: _ours(connection, few),
                "ours": lambda: _ours(connection, many),
                "naive": lambda: _naive(connection, many),
            },
            repeats=1 if IS_SMALL else 3,
        )
    cpu = {name: [c.cpu_s for c in some] for name, some in costs.items()}
    figures["distinct_vs_naive_cpu"] = median_ratio(cpu["ours"], cpu["naive"])
    figures["growth_10x_cpu"] = median_ratio(cpu["ours"], cpu["tenth"])
    figures["incremental_day_share"] = incremental_day_share()
    figures |= features_at_size.figures() | features_that_leak.figures()
    report("features", figures, limits=LIMITS, raw=cpu)


def wrong_cells(connection: duckdb.DuckDBPyConnection) -> int:
    """Cells of our text that differ from plain loops over the facts."""
    names = _tables(connection, NUM_CHECKED * 5, num_points=NUM_CHECKED, num_accounts=NUM_CHECKED // 4)
    _use(connection, names)
    answers = connection.sql(text.features(ACTIVITY)).to_arrow_table().to_pylist()
    facts: dict[str, list[dict[str, object]]] = {}
    for fact in connection.sql(f"SELECT * FROM {names[0]}").to_arrow_table().to_pylist():
        facts.setdefault(fact["entity"], []).append(fact)
    wrong = 0
    for row in answers:
        past = facts.get(row["account_id"], [])
        expected = features(ACTIVITY, past, at_us=row["event_us"], created_us=row["created_us"])
        wrong += sum(row[name] != value for name, value in expected.items())
    return wrong


def handbook_wrong_cells() -> int:
    """Cells of the handbook's fourteen features that differ from its own pandas code, over all payments."""
    with duckdb.connect(config={"memory_limit": "8GB"}) as connection:
        end = "2018-04-12" if IS_SMALL else "2018-10-01"
        payments = handbook.load(connection, DATA / "card_fraud_sim", end=end)
        return handbook.wrong_cells(handbook.ours(connection), handbook.by_pandas(payments))


def incremental_day_share() -> float:
    """CPU of one more day over the CPU of all days at once."""
    with TemporaryDirectory() as folder, duckdb.connect(config={"memory_limit": "8GB"}) as connection:
        lake = Lake(Path(folder), memory_limit="8GB")
        days = days_between(day_of(START), day_of(START + (NUM_DAYS - 1) * DAY))
        facts, _ = _tables(connection, NUM_EVENTS)
        for number, day in enumerate(days):
            own = {"event_us": "us", "arrived_us": "us", "account_id": "entity", "kind": "'prompt'", "text": "''"}
            columns = ", ".join(f"{own.get(name, name)} AS {name}" for name in REQUESTS.columns)
            start = START + number * DAY
            of_day = f"SELECT {columns} FROM {facts} WHERE us >= {start} AND us < {start + DAY}"
            lake.write("events", "requests", connection.sql(of_day).to_arrow_table(), day=day)
            seen = f"SELECT *, 'daily' AS kind FROM ({of_day}) USING SAMPLE 1% (bernoulli, 7)"
            lake.write("events", "accounts", connection.sql(_ACCOUNTS.format(rows=seen)).to_arrow_table(), day=day)
        whole = cost(lambda: compute_days(lake, days[0], days[-1], views=[ACTIVITY.name]))
        one = cost(lambda: compute_day(lake, days[-1], views=[ACTIVITY.name]))
    return one.cpu_s / whole.cpu_s


_ACCOUNTS = """
    SELECT event_id, event_us, arrived_us, account_id, 'daily' AS kind, ip, NULL::VARCHAR AS device_id,
        NULL::VARCHAR AS card_id, NULL::VARCHAR AS email_domain, NULL::VARCHAR AS plan
    FROM (SELECT * EXCLUDE (kind) FROM ({rows}))
"""


def _tables(
    connection: duckdb.DuckDBPyConnection, num: int, *, num_points: int = NUM_POINTS, num_accounts: int = 100_000
) -> tuple[str, str]:
    facts, points = f"facts_{num}", f"points_{num}"
    events = _EVENTS.format(start=START, span=NUM_DAYS * DAY, accounts=num_accounts, num=num)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {facts} AS {events}")
    asked = f"SELECT DISTINCT entity, us, us AS created FROM {facts} ORDER BY hash(us) LIMIT {num_points}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {points} AS {asked}")
    return facts, points


def _use(connection: duckdb.DuckDBPyConnection, names: tuple[str, str]) -> None:
    facts, points = names
    connection.execute(f"CREATE OR REPLACE TEMP VIEW moments AS SELECT entity, us FROM {points}")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW points AS SELECT * FROM {points}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE facts AS {text.near(ACTIVITY, f'SELECT * FROM {facts}')}")


def _ours(connection: duckdb.DuckDBPyConnection, names: tuple[str, str]) -> None:
    _use(connection, names)
    connection.sql(text.features(ACTIVITY)).to_arrow_table()


def _naive(connection: duckdb.DuckDBPyConnection, names: tuple[str, str]) -> None:
    connection.sql(_NAIVE.format(facts=names[0], points=names[1])).to_arrow_table()


if __name__ == "__main__":
    main()
