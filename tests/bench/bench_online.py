"""Online features: what a read costs against a raw HMGET and against Feast, and whether stream, batch and lake agree.

The three views of ten features are windows, so what a request needs is a function of its moment. We keep one state per
view and compute the ten values as they are asked for; Feast and the raw HMGET read ten values that were computed for
that very moment and written by Feast, and which would be stale a microsecond later. So the raw side fetches thirty
values and three timestamps and decodes nothing, ours fetches three states, enforces the TTL, computes thirty values and
says of each whether it was present. `mismatched_cells` compares those with what Feast itself answers.
"""

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import redis
from feast import Entity, FeatureService, FeatureStore, RepoConfig, ValueType

from feature_repo.compute import features_at
from feature_repo.lake import Lake
from feature_repo.layout import entity_key_prefix, entity_key_suffix
from feature_repo.online import OnlineFeatures
from feature_repo.rebuild import rebuild
from feature_repo.repo import feature_view
from feature_repo.states import open_states
from feature_repo.view import MICRO, Measure, View
from feature_repo.windows import VIEWS, WINDOWS
from tests.bench import online_day
from tests.bench.harness import IS_SMALL, median_ratio, report
from tests.bench.online_day import DAY, END_US
from tests.feature_repo.redis_server import BINARY, RedisServer, redis_server

LIMITS = {
    "vs_hmget_1": "<= 1.6",
    "vs_feast_speedup_1": ">= 5",
    "vs_hmget_50": "<= 2.2",
    "mismatched_cells": "= 0",
    "stream_batch_mismatches": "= 0",
    "online_offline_mismatches": "= 0",
}
PROJECT = "mews"
NUM_ACCOUNTS = 200 if IS_SMALL else 1000
NUM_ROWS = 2_000 if IS_SMALL else 100_000
ROUNDS = 10 if IS_SMALL else 60


def _measure(kind: Any, windows: str, of: str | None = None, scale: int = 1) -> Measure:
    return Measure(kind, f"{kind}_{of}", "for the benchmark", tuple(WINDOWS[w] for w in windows.split()), of, scale)


def _ten(name: str, facts: str, *measures: Measure) -> View:
    """Ten features: nine over windows, and the time since the last fact; named apart, as they meet in one service."""
    named = [Measure(m.kind, f"{name}_{m.name}", m.meaning, m.windows, m.of, m.scale) for m in measures]
    return View(name, "account_id", (facts,), (*named, Measure("since", f"{name}_since", "since the last")))


TEN = (
    _ten("bench_requests", "requests", _measure("count", "1h 1d 7d 30d"), _measure("sum", "1d 7d 30d", "num_tokens"),
         _measure("distinct", "1d 7d", "ip")),
    _ten("bench_payments", "payments", _measure("count", "1h 1d 7d 30d"), _measure("sum", "30d", "amount_micros"),
         _measure("mean", "1d 7d 30d", "amount_micros", MICRO), _measure("distinct", "7d", "card_id")),
    _ten("bench_accounts", "accounts", _measure("count", "1d 7d 30d"), _measure("sum", "7d 30d", "is_signup"),
         _measure("distinct", "1d 7d", "ip"), _measure("distinct", "7d 30d", "device_id")),
)  # fmt: skip


def main() -> None:
    """Measure, print and keep the figures."""
    if BINARY is None:
        why = dict.fromkeys(LIMITS, "no redis-server on this machine")
        report("online", {**dict.fromkeys(LIMITS), "why": why}, limits=LIMITS)
        return
    with tempfile.TemporaryDirectory() as folder:
        with redis_server(Path(folder)) as server:
            figures, raw = day_of_pushes(Path(folder) / "day", server)
        with redis_server(Path(folder)) as server:
            reads, raw_reads = reading(Path(folder) / "reads", server)
    figures = {**reads, **figures, **footprint()}
    report("online", figures, limits=LIMITS, raw=raw | raw_reads)


def day_of_pushes(root: Path, server: RedisServer) -> tuple[dict[str, object], dict[str, object]]:
    """Rows whose entities are read at the end of a day that was pushed, and again once the lake has caught up."""
    lake, states = Lake(root), open_states(root, redis=server.connection, deadline_s=30)
    online_day.lay_down(lake, num_a_day=NUM_ROWS // 20, num_last_day=NUM_ROWS, num_days=31)
    began = time.perf_counter()
    rebuild(lake, states, DAY - timedelta(days=1))
    rebuilt = time.perf_counter()
    kills = online_day.push_the_day(lake, server.connection)
    pushed = time.perf_counter()
    rows = [event for table, event in online_day.of_last_day(lake) if table != "labels"]
    complete = [{name: row.get(name) or f"{letter}0" for name, letter in online_day.KEYS.items()} for row in rows]
    streamed, expected = online_day.online(states, complete), online_day.offline(lake, complete)
    read = time.perf_counter()
    rebuild(lake, states, DAY)
    settled = online_day.online(states, complete)
    figures: dict[str, object] = {
        "stream_batch_mismatches": online_day.num_different(streamed, settled),
        "online_offline_mismatches": online_day.num_different(streamed, expected),
        "rows": len(complete),
        "kills": kills,
    }
    return figures, {"rebuild_s": rebuilt - began, "push_s": pushed - rebuilt, "read_s": read - pushed}


def reading(root: Path, server: RedisServer) -> tuple[dict[str, object], dict[str, object]]:
    """What a read costs, and whether it says what Feast says."""
    VIEWS.update({view.name: view for view in TEN})
    lake, states = Lake(root), open_states(root, redis=server.connection, deadline_s=30)
    online_day.lay_down(lake, num_a_day=NUM_ACCOUNTS * 3, num_last_day=NUM_ACCOUNTS * 4, num_days=31)
    for view in set(VIEWS) - {view.name for view in TEN}:
        del VIEWS[view]
    rebuild(lake, states, DAY)
    accounts = [f"a{n}" for n in range(NUM_ACCOUNTS)]
    feast = feast_with_values(root, server, lake, accounts)
    ours = OnlineFeatures(states, TEN)
    names = [feature.name for view in TEN for feature in view.features]
    answered = ours.read([{"account_id": a} for a in accounts], [END_US] * len(accounts))
    theirs = feast(accounts)
    cells = [(row.values[name], theirs[name][n]) for n, row in enumerate(answered) for name in names]
    costs = compare(server, ours, feast, accounts)
    typical = {name: statistics.median(some) for name, some in costs.items()}
    figures: dict[str, object] = {
        "vs_hmget_1": median_ratio(costs["ours_1"], costs["raw_1"]),
        "vs_feast_speedup_1": median_ratio(costs["feast_1"], costs["ours_1"]),
        "vs_hmget_50": median_ratio(costs["ours_50"], costs["raw_50"]),
        "mismatched_cells": sum(mine != _plain(other) for mine, other in cells),
        "cells": len(cells),
        "call_us": {name: round(value * 1e6, 1) for name, value in typical.items()},
    }
    return figures, {"costs_s": costs}


def feast_with_values(
    root: Path, server: RedisServer, lake: Lake, accounts: list[str]
) -> Callable[[list[str]], dict[str, list[Any]]]:
    """Feast over the same Redis, with the values of this moment in it; returns its get_online_features."""
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(root / "registry.db"), "cache_ttl_seconds": 600},
        offline_store={"type": "duckdb"},
        online_store={"type": "redis", "connection_string": server.connection},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    account = Entity(name="account_id", join_keys=["account_id"], value_type=ValueType.STRING)
    views = [feature_view(view, account, lake, is_online=True) for view in TEN]
    store.apply([account, *views, FeatureService(name="bench", features=views)])
    for view in TEN:
        rows = pd.DataFrame(features_at(lake, view, [(a, END_US) for a in accounts]))
        moment = pd.Timestamp(END_US, unit="us", tz="UTC")
        frame = rows.assign(account_id=accounts, event_timestamp=moment, created=moment)
        store.write_to_online_store(view.name, df=frame)
    service = store.get_feature_service("bench")

    def read(asked: list[str]) -> dict[str, list[Any]]:
        rows = [{"account_id": a} for a in asked]
        return dict(store.get_online_features(features=service, entity_rows=rows).to_dict())

    return read


def compare(server: RedisServer, ours: OnlineFeatures, feast: Any, accounts: list[str]) -> dict[str, list[float]]:
    """Seconds of a call in each round, in turn, over other accounts each time.

    Of each round the fastest tenth counts: on a busy machine the median says how long both sides waited for a core.
    """
    from feast.infra.online_stores.helpers import _mmh3

    client = redis.Redis(port=server.port)
    fields = [f for v in TEN for f in (f"_ts:{v.name}".encode(), *(_mmh3(f"{v.name}:{x.name}") for x in v.features))]
    keys = {a: entity_key_prefix("account_id") + entity_key_suffix(a) + PROJECT.encode() for a in accounts}
    assert all(client.hmget(keys[accounts[0]], fields)[1:3])

    def raw(asked: list[str]) -> None:
        pipeline = client.pipeline(transaction=False)
        for account in asked:
            pipeline.hmget(keys[account], fields)
        pipeline.execute()

    def mine(asked: list[str]) -> None:
        ours.read([{"account_id": account} for account in asked], [END_US] * len(asked))

    calls: dict[str, tuple[Callable[[list[str]], object], int, int]] = {
        "raw_1": (lambda asked: client.hmget(keys[asked[0]], fields), 1, 100),
        "ours_1": (mine, 1, 100),
        "feast_1": (feast, 1, 20),
        "raw_50": (raw, 50, 10),
        "ours_50": (mine, 50, 10),
    }
    costs: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS):
        for name, (call, size, repeats) in calls.items():
            starts = [(number * repeats + n) * size % (len(accounts) - size + 1) for n in range(repeats)]
            seconds = [_timed(call, accounts[start : start + size]) for start in starts]
            costs[name].append(statistics.quantiles(seconds, n=10)[0])
    return costs


def footprint() -> dict[str, object]:
    """What a process that only reads features needs, beside one that imports Feast."""
    program = (
        "import time; t = time.process_time(); import {0}; t = time.process_time() - t; "
        "print(t, [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    found = {}
    for name, modules in {"reader": "feature_repo.online, feature_repo.states_redis", "feast": "feast"}.items():
        done = subprocess.run([sys.executable, "-c", program.format(modules)], capture_output=True, check=True)
        seconds, kilobytes = done.stdout.split()[-2:]
        found |= {f"{name}_import_cpu_s": round(float(seconds), 2), f"{name}_mb": int(kilobytes) // 1024}
    return found


def _timed(call: Callable[[list[str]], object], asked: list[str]) -> float:
    began = time.perf_counter()
    call(asked)
    return time.perf_counter() - began


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    main()
