"""A day of pushes from several processes, in any order, with duplicates and a crash; and a lake that knows it all."""

import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from feature_repo.compute import features_at
from feature_repo.lake import DAY_US, Lake, start_us
from feature_repo.online import OnlineFeatures
from feature_repo.push import push
from feature_repo.states import States, open_states
from feature_repo.windows import VIEWS

DAY = date(2026, 3, 31)
END_US = start_us(DAY) + DAY_US
NUM_PUSHERS = 3
KEYS = {"account_id": "a", "ip": "i", "card_id": "c", "merchant_id": "m", "device_id": "d"}

# Entities are skewed, so that some are hot; `h(n)` is a number between 0 and 1 that depends on the event alone.
_EVENTS = """
    WITH raw AS (SELECT i, {start} + (hash(i, {day}) % {day_us})::BIGINT AS us FROM range({num}) AS t(i))
    SELECT 'e{day}-' || i AS event_id, us AS event_us, us AS arrived_us,
        'a' || floor(pow({h1}, 2) * {num_entities})::BIGINT AS account_id,
        'i' || floor(pow({h2}, 2) * {num_entities})::BIGINT AS ip,
        'c' || floor(pow({h3}, 2) * {num_entities})::BIGINT AS card_id,
        'm' || floor(pow({h4}, 3) * {num_merchants})::BIGINT AS merchant_id,
        'd' || floor(pow({h5}, 2) * {num_entities})::BIGINT AS device_id,
        (hash(i, 6) % 900)::INTEGER AS num_tokens, (hash(i, 7) % 100000) / 100.0 AS amount,
        CASE WHEN hash(i, 8) % 20 = 0 THEN 'signup' ELSE 'daily' END AS account_kind,
        CASE hash(i, 9) % 4 WHEN 0 THEN NULL WHEN 1 THEN 'free' WHEN 2 THEN 'trial' ELSE 'paid' END AS plan,
        'x' || hash(i, 10) % 9 || '.example' AS email_domain, 'prompt' AS kind, '' AS text, i % 3 AS place
    FROM raw
"""
_TABLES = {
    "requests": "SELECT {c} FROM events WHERE place = 0",
    "payments": "SELECT {c} FROM events WHERE place = 1",
    "accounts": "SELECT {c} FROM (SELECT * REPLACE (account_kind AS kind) FROM events) WHERE place = 2",
    "labels": """
        SELECT event_id, 'payments' AS event_table, event_us, event_us + 60000000 AS known_us, 'fraud' AS label,
            (hash(event_id) % 3 = 0)::TINYINT AS value, 'reviewer' AS source, 1.0 AS sampling_probability,
            NULL::VARCHAR AS split
        FROM events WHERE place = 1 AND hash(event_id) % 5 = 0 AND event_us + 60000000 < {end}
    """,
}


def lay_down(lake: Lake, *, num_a_day: int, num_last_day: int, num_days: int) -> None:
    """Some days of history, and the day that is pushed."""
    from feature_repo.tables import TABLES

    for back in range(num_days, -1, -1):
        day, num = DAY - timedelta(days=back), num_a_day if back else num_last_day
        hashed = {f"h{n}": f"(hash(i, {n}, {back}) / 18446744073709551616.0)" for n in range(1, 6)}
        sizes = {"num": num, "num_entities": num_last_day // 4, "num_merchants": num_last_day // 100 + 1}
        with duckdb.connect() as connection:
            events = _EVENTS.format(start=start_us(day), day=back, day_us=DAY_US, **hashed, **sizes)
            connection.execute(f"CREATE TEMP TABLE events AS {events}")
            for table, query in _TABLES.items():
                rows = connection.sql(query.format(c=", ".join(TABLES[table].columns), end=start_us(day) + DAY_US))
                lake.write("events", table, rows.to_arrow_table(), day=day)


def of_last_day(lake: Lake) -> list[tuple[str, dict[str, Any]]]:
    """What the service saw on the last day; a verdict comes with merchant and amount of its payment."""
    with lake.connect() as connection:
        rows = [(t, e) for t in ("requests", "payments", "accounts") for e in _dicts(connection, _day(lake, t))]
        labels = f"SELECT l.*, p.merchant_id, p.amount FROM ({_day(lake, 'labels')}) l JOIN payments p USING (event_id)"
        return rows + [("labels", e) for e in _dicts(connection, labels)]


def _day(lake: Lake, table: str) -> str:
    return lake.select("events", table, first=DAY, last=DAY)


def _dicts(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    return list(connection.sql(query).to_arrow_table().to_pylist())


def push_a_share(root: str, redis: str, place: int) -> None:
    """What one process pushes: its share, a tenth of it twice, in an order of its own."""
    lake, states = Lake(Path(root)), open_states(Path(root), redis=redis, deadline_s=30)
    generator = random.Random(place)
    events = of_last_day(lake)[place::NUM_PUSHERS]
    events += generator.sample(events, len(events) // 10)
    generator.shuffle(events)
    print("ready", flush=True)
    for start in range(0, len(events), 100):
        push(states, events[start : start + 100])
        print(start, flush=True)


def push_the_day(lake: Lake, redis: str) -> int:
    """All shares at once; the first process is killed in the middle of its own and begins again. Returns the kills."""
    pushers = [_pusher(lake, redis, place) for place in range(NUM_PUSHERS)]
    assert pushers[0].stdout
    num_batches = len(of_last_day(lake)) // NUM_PUSHERS // 100
    for _ in range(2 + num_batches // 2):
        pushers[0].stdout.readline()
    pushers[0].send_signal(signal.SIGKILL)
    is_killed = pushers[0].wait() == -signal.SIGKILL
    pushers[0].stdout.close()
    pushers[0] = _pusher(lake, redis, 0)
    for pusher in pushers:
        pusher.communicate()
        assert pusher.returncode == 0
    return int(is_killed)


def _pusher(lake: Lake, redis: str, place: int) -> subprocess.Popen[bytes]:
    program = f"from tests.bench.online_day import push_a_share; push_a_share({str(lake.root)!r}, {redis!r}, {place})"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)


def online(states: States, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every feature of each row's entities at the end of the day, 200 rows to a call."""
    reader = OnlineFeatures(states, list(VIEWS.values()))
    answers: list[dict[str, Any]] = []
    for start in range(0, len(rows), 200):
        some = rows[start : start + 200]
        answers += [row.values for row in reader.read(some, [END_US] * len(some))]
    return answers


def offline(lake: Lake, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same from the lake, by the feature SQL."""
    answers: list[dict[str, Any]] = [{} for _ in rows]
    for view in VIEWS.values():
        keys = sorted({row[view.entity] for row in rows})
        found = dict(zip(keys, features_at(lake, view, [(key, END_US) for key in keys]), strict=True))
        for row, answer in zip(rows, answers, strict=True):
            answer.update(found[row[view.entity]])
    return answers


def num_different(left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]) -> int:
    """Cells that are not equal to the last bit."""
    return sum(a[name] != b[name] for a, b in zip(left, right, strict=True) for name in {**a, **b})
