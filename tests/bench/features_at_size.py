"""The feature text at sizes that need care: on Spark row by row, through Feast, and fifty million events."""

import json
import random
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pandas as pd
import pyarrow as pa

from feature_repo import text
from feature_repo.compute import compute_days, stamped
from feature_repo.lake import DAY_US, Lake, day_of, days_between, start_us
from feature_repo.store import open_store
from feature_repo.view import DAY, View
from feature_repo.windows import SERVICES, VIEWS
from tests.bench.harness import IS_SMALL, interleave, median_ratio, peak_gb

START = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC
ACTIVITY = VIEWS["account_activity"]
SPARK_EVENTS, SPARK_POINTS = (20_000, 2_000) if IS_SMALL else (1_000_000, 100_000)
FEAST_ROWS = 20_000 if IS_SMALL else 1_000_000
MANY_EVENTS = 500_000 if IS_SMALL else 50_000_000
NUM_DAYS = 30
_FACTS = """
    SELECT 'e' || i AS event_id, {start} + (hash(i) % {span})::BIGINT AS us,
        CASE WHEN hash(i + 9) % 50 = 0 THEN us + {late} ELSE us END AS known_us,
        'a' || floor(pow(hash(i + 1) / 18446744073709551616.0, 3) * {accounts})::BIGINT AS entity,
        CASE WHEN hash(i + 8) % 20 > 0 THEN 'i' || hash(i + 2) % 50 END AS ip, (hash(i + 3) % 900)::BIGINT AS num_tokens
    FROM range({num}) AS t(i)
"""


def figures() -> dict[str, object]:
    """The three figures."""
    with TemporaryDirectory() as folder:
        diff = spark_diff_rows(Path(folder))
    with TemporaryDirectory() as folder:
        feast = feast_vs_asof_cpu(Path(folder))
    with TemporaryDirectory() as folder:
        peak = events_50m_peak_gb(Path(folder))
    return {"spark_diff_rows": diff, "feast_vs_asof_cpu": feast, "events_50m_peak_gb": peak}


def spark_diff_rows(folder: Path) -> int:
    """Rows that only one of the two engines gives, over late facts, nulls and moments before and after them."""
    from feature_repo import spark as engine

    with duckdb.connect(config={"memory_limit": "6GB"}) as connection:
        facts = _FACTS.format(
            start=START, span=NUM_DAYS * DAY, late=3 * DAY, accounts=SPARK_EVENTS // 10, num=SPARK_EVENTS
        )
        connection.execute(f"CREATE TEMP TABLE given AS {facts}")
        asked = f"SELECT DISTINCT entity, us FROM given ORDER BY hash(us) LIMIT {SPARK_POINTS}"
        connection.execute(f"CREATE TEMP TABLE moments AS {asked}")
        connection.execute(f"CREATE TEMP TABLE facts AS {text.near(ACTIVITY, 'SELECT * FROM given')}")
        connection.execute(f"CREATE TEMP TABLE points AS {text.points(ACTIVITY)}")
        connection.execute(f"CREATE TEMP TABLE ours AS {text.features(ACTIVITY)}")
        for table in ("given", "moments"):
            connection.execute(f"COPY {table} TO '{folder / table}.parquet' (FORMAT parquet)")
        with engine.session("local[2]", **{"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": "8"}) as spark:
            for table in ("given", "moments"):
                spark.read.parquet(str(folder / f"{table}.parquet")).createOrReplaceTempView(table)
            spark.sql(text.near(ACTIVITY, "SELECT * FROM given")).createOrReplaceTempView("facts")
            spark.sql(text.points(ACTIVITY)).createOrReplaceTempView("points")
            spark.sql(text.features(ACTIVITY)).write.parquet(str(folder / "theirs"))
        theirs = f"SELECT * FROM read_parquet('{folder / 'theirs'}/*.parquet')"
        query = f"""SELECT count(*) FROM ((SELECT * FROM ours EXCEPT ALL {theirs}) UNION ALL
                    ({theirs} EXCEPT ALL SELECT * FROM ours))"""
        [(num_different,)] = connection.execute(query).fetchall()
        [(num_ours,)] = connection.execute("SELECT count(*) FROM ours").fetchall()
    assert num_ours >= SPARK_POINTS
    return int(num_different)


def feast_vs_asof_cpu(home: Path) -> float:
    """CPU of `get_historical_features` over that of the join a person would write, on the views of a service."""
    lake, views = Lake(home / "lake"), [VIEWS[name] for name in SERVICES["payment_v2"].views]
    for view in views:
        _write_rows(lake, view)
    store, asked = open_store(home), _asked()
    service = store.get_feature_service("payment_v2")
    costs = interleave(
        {
            "feast": lambda: store.get_historical_features(asked, service, filter_by_created_timestamp=True).to_arrow(),
            "asof": lambda: _by_hand(lake, views, asked),
        },
        repeats=1 if IS_SMALL else 3,
    )
    return median_ratio([c.cpu_s for c in costs["feast"]], [c.cpu_s for c in costs["asof"]])


def _write_rows(lake: Lake, view: View) -> None:
    """A feature row per moment; one in a hundred has another that a late fact added."""
    cells = ", ".join(
        {"int": "hash(i + {n}) % 1000", "float": "(hash(i + {n}) % 100000) / 100.0", "str": "'v' || hash(i + {n}) % 9"}[
            f.dtype
        ].format(n=n)
        + ("::BIGINT" if f.dtype == "int" else "")
        + f" AS {f.name}"
        for n, f in enumerate(view.features)
    )
    moment = f"{START} + (hash(i) % {NUM_DAYS * DAY})::BIGINT"
    rows = f"""SELECT 'x' || hash(i + 77) % 100000 AS {view.entity}, {moment} AS event_us,
        event_us + j * {3 * DAY} AS created_us, {cells} FROM range({FEAST_ROWS}) AS t(i), range(2) AS u(j)
        WHERE j = 0 OR i % 100 = 0"""
    with lake.connect() as connection:
        connection.execute(f"CREATE TEMP TABLE made AS {rows}")
        for number in range(NUM_DAYS):
            first = START + number * DAY
            today = connection.sql(f"SELECT * FROM made WHERE event_us >= {first} AND event_us < {first + DAY}")
            lake.write("features", view.name, stamped(today.to_arrow_table()), day=day_of(first))


def _asked() -> pd.DataFrame:
    generator = random.Random(1)
    keys = ["account_id", "merchant_id", "card_id"]
    columns = {key: [f"x{generator.randrange(100_000)}" for _ in range(FEAST_ROWS)] for key in keys}
    moments = [START + generator.randrange(NUM_DAYS * DAY) for _ in range(FEAST_ROWS)]
    return pd.DataFrame({**columns, "event_timestamp": pd.to_datetime(moments, unit="us", utc=True)})


def _by_hand(lake: Lake, views: list[View], asked: pd.DataFrame) -> None:
    """For each view: of rows of one moment the one created last, then an ASOF join within the time to live."""
    with lake.connect() as connection:
        connection.register("given", pa.Table.from_pandas(asked, preserve_index=False))
        utc = "* REPLACE (CAST(event_timestamp AS TIMESTAMPTZ) AS event_timestamp)"
        connection.execute(f"CREATE TEMP TABLE asked AS SELECT {utc} FROM given")
        joins, columns = [], ["asked.*"]
        for view in views:
            names = ", ".join(f'"{f.name}"' for f in view.features)
            joins.append(f"""ASOF LEFT JOIN (
                SELECT {view.entity}, event_timestamp, {names} FROM ({lake.select("features", view.name)})
                QUALIFY row_number() OVER (PARTITION BY {view.entity}, event_timestamp ORDER BY created DESC) = 1
            ) AS {view.name} ON {view.name}.{view.entity} = asked.{view.entity}
                AND {view.name}.event_timestamp <= asked.event_timestamp""")
            fresh = f"{view.name}.event_timestamp >= asked.event_timestamp - INTERVAL 2 DAY"
            columns += [f'CASE WHEN {fresh} THEN {view.name}."{f.name}" END AS "{f.name}"' for f in view.features]
        connection.sql(f"SELECT {', '.join(columns)} FROM asked {' '.join(joins)}").to_arrow_table()


def events_50m_peak_gb(folder: Path) -> float:
    """The largest memory of a process that computes a view over all events under a limit of 6 GB."""
    lake = Lake(folder, memory_limit="6GB")
    first = day_of(START)
    for day in days_between(first, first + timedelta(days=NUM_DAYS - 1)):
        _write_events(lake, day)
    command = [sys.executable, "-m", "tests.bench.features_at_size", str(folder), str(first)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(run.stdout.splitlines()[-1]))


def _write_events(lake: Lake, day: date) -> None:
    """A day's requests of skewed accounts, and the accounts, one in a hundred, at whose moments a view is asked."""
    num = MANY_EVENTS // NUM_DAYS
    with lake.connect() as connection:
        connection.execute(f"""CREATE TEMP TABLE made AS
            SELECT 'e{day.toordinal()}-' || i AS event_id, {start_us(day)} + (hash(i) % {DAY_US})::BIGINT AS event_us,
                event_us AS arrived_us, 'a' || floor(pow(hash(i + {day.toordinal()}) / 18446744073709551616.0, 3)
                * 500000)::BIGINT AS account_id, 'i' || hash(i + 2) % 20000 AS ip, 'prompt' AS kind, '' AS text,
                (hash(i + 3) % 900)::INTEGER AS num_tokens
            FROM range({num}) AS t(i)""")
        lake.write("events", "requests", connection.sql("SELECT * FROM made").to_arrow_table(), day=day)
        seen = """SELECT event_id, event_us, arrived_us, account_id, 'daily' AS kind, ip, NULL::VARCHAR AS device_id,
            NULL::VARCHAR AS card_id, NULL::VARCHAR AS email_domain, NULL::VARCHAR AS plan
            FROM made WHERE hash(event_id) % 100 = 0"""
        lake.write("events", "accounts", connection.sql(seen).to_arrow_table(), day=day)


if __name__ == "__main__":
    root, first_day = Path(sys.argv[1]), date.fromisoformat(sys.argv[2])
    compute_days(
        Lake(root, memory_limit="6GB"), first_day, first_day + timedelta(days=NUM_DAYS - 1), views=[ACTIVITY.name]
    )
    print(json.dumps(peak_gb()))
