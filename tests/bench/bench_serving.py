"""What an answer costs: our score-only route and full decision beside FastAPI, LitServe and MLflow with one scorer.

All servers run together and are loaded in turn; CPU is that of each server's whole process tree. Then the full decision
at half of its saturation, and for a minute at five times what it can take. Then the same service with an encoder in the
path, and with a cascade before it (`encoder_path`).
"""

import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import encoder_path
from tests.bench.harness import IS_SMALL, report
from tests.bench.homes import api_key, deployed, ngram_spec, real_texts, trained
from tests.bench.load import Plan, load, request, tree_mb
from tests.bench.mlflow_peer import save_mlflow
from tests.bench.servers import Measured, Server, measure, peers
from tests.serving.service.served import free_port, served
from training.scorer import Scorer

ROUNDS = 2 if IS_SMALL else 5
MOST = {"single": 300 if IS_SMALL else 1500, "batch": 40 if IS_SMALL else 150}
CONNECTIONS = {"single": 32, "batch": 8}
BATCH = 32
OVERLOAD_S = 4.0 if IS_SMALL else 60.0
DEADLINE_S = 2.0
ACCOUNTS = 500
LIMITS = {
    "score_vs_fastapi_cpu": "<= 1.5",
    "score_vs_litserve_cpu": "<= 0.5",
    "score_vs_mlflow_cpu": "<= 0.4",
    "batch_vs_fastapi_cpu": "<= 1.3",
    "batch_vs_raw_cpu": "<= 2",
    "full_vs_fastapi_cpu": "<= 2",
    "full_p99_vs_fastapi": "<= 2",
    "full_p99_ms": "goal 15",
    "overload_goodput": ">= 0.8",
    **encoder_path.LIMITS,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        servers, bundle = started(stack, folder)
        costs = in_turn(servers)
        raw_us = raw_batch_us(bundle)
        half = at_half({name: (servers[name], costs[name]["single"]) for name in ("fastapi", "full")})
        overload = overloaded(servers["full"], costs["full"]["single"])
    with tempfile.TemporaryDirectory() as temporary:
        of_encoder, raw = encoder_path.encoder_figures(Path(temporary))
    found = figures(costs, raw_us, half, overload) | of_encoder
    report("serving", found, limits=LIMITS, raw=[costs, raw_us, half, overload, raw])


def started(stack: ExitStack, folder: Path) -> tuple[dict[str, Server], Path]:
    """Every server with what it is asked; "score" is a detector of texts alone, "full" also reads features."""
    spec = ngram_spec()
    run_dir = trained(folder / "plain", spec)
    deployed(folder / "home", run_dir, spec)
    texts = real_texts(2000)
    rows = [{"text": text} for text in texts]
    save_mlflow(folder / "mlflow")
    theirs = {
        "fastapi": asked_rows("/score", rows),
        "litserve": asked_rows("/score", rows),
        "mlflow": mlflow_rows(rows),
    }
    servers = stack.enter_context(peers(run_dir / "bundle", folder, theirs))
    servers["score"] = stack.enter_context(our(folder / "home", "/v1/scores", rows))
    with_features = ngram_spec(reads_features=True)
    deployed(folder / "full", trained(folder / "features", with_features), with_features)
    redis = stack.enter_context(redis_server())
    events = [{**row, "account_id": f"account-{at % ACCOUNTS}"} for at, row in enumerate(rows)]
    servers["full"] = stack.enter_context(our(folder / "full", "/v1/decisions", events, redis=redis))
    return servers, run_dir / "bundle"


@contextmanager
def our(home: Path, path: str, events: list[dict[str, str]], *, redis: str = "") -> Iterator[Server]:
    """Our service over a home."""
    key = {"authorization": f"Bearer {api_key(home)}"}
    single = [{"detector": "content", "event": event} for event in events]
    many = [{"detector": "content", "events": group} for group in batches(events)]
    requests = {
        "single": [request(path, json.dumps(body).encode(), **key) for body in single],
        "batch": [request(path, json.dumps(body).encode(), **key) for body in many],
    }
    with served(home, env={"MEWS_REDIS": redis}, log=home / "service.log") as server:
        yield Server(server.port, server.pid, requests)


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of our own that keeps nothing."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def asked_rows(path: str, rows: list[dict[str, str]]) -> dict[str, list[bytes]]:
    single = [request(path, json.dumps({"rows": [row]}).encode()) for row in rows]
    many = [request(path, json.dumps({"rows": group}).encode()) for group in batches(rows)]
    return {"single": single, "batch": many}


def mlflow_rows(rows: list[dict[str, str]]) -> dict[str, list[bytes]]:
    def body(group: list[dict[str, str]]) -> bytes:
        return json.dumps({"dataframe_split": {"columns": ["text"], "data": [[r["text"]] for r in group]}}).encode()

    path = "/invocations"
    return {
        "single": [request(path, body([row])) for row in rows],
        "batch": [request(path, body(group)) for group in batches(rows)],
    }


def batches(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    return [rows[at : at + BATCH] for at in range(0, len(rows) - BATCH + 1, BATCH)]


def in_turn(servers: dict[str, Server]) -> dict[str, dict[str, list[Measured]]]:
    """Each server and kind of request once per round, after a round that counts for nothing."""
    costs: dict[str, dict[str, list[Measured]]] = {name: {"single": [], "batch": []} for name in servers}
    for is_counted in [False] + [True] * ROUNDS:
        for kind in ("single", "batch"):
            for name, server in servers.items():
                found = measure(server, kind, connections=CONNECTIONS[kind], most=MOST[kind])
                assert found.num_failed == 0, f"{name} failed {found.num_failed} of {MOST[kind]} requests"
                if is_counted:
                    costs[name][kind].append(found)
    return costs


def raw_batch_us(bundle: Path) -> list[float]:
    """CPU of the scorer alone, per batch."""
    scorer, groups = Scorer.load(bundle), batches([{"text": text} for text in real_texts(2000)])
    times = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        for group in groups:
            scorer.score(group)
        times.append((time.process_time() - begun) / len(groups) * 1e6)
    return times[1:]


def at_half(saturated: dict[str, tuple[Server, list[Measured]]]) -> dict[str, list[Measured]]:
    """Each in turn at half of the rate that it reached; lateness of an arrival counts as latency."""
    found: dict[str, list[Measured]] = {name: [] for name in saturated}
    for _ in range(ROUNDS):
        for name, (server, reached) in saturated.items():
            rate = statistics.median(m.per_second for m in reached) / 2
            found[name].append(measure(server, "single", connections=64, most=MOST["single"], rate=rate))
    return found


def overloaded(server: Server, saturated: list[Measured]) -> dict[str, float]:
    """Arrivals at five times saturation: what is answered in time, and what it takes of memory."""
    best = max(m.per_second for m in saturated)
    before_mb, peak = tree_mb(server.pid), [0.0]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            peak[0] = max(peak[0], tree_mb(server.pid))

    watching = threading.Thread(target=watch)
    watching.start()
    plan = Plan(server.port, server.requests["single"], 1000, OVERLOAD_S, rate=5 * best, timeout_s=10.0)
    outcome = load(plan)
    is_over.set()
    watching.join()
    after = measure(server, "single", connections=32, most=MOST["single"])
    answered = list(zip(outcome.statuses, outcome.service_s, strict=True))
    good = sum(status == 200 and seconds <= DEADLINE_S for status, seconds in answered)
    refused = outcome.num(429, 503)
    return {
        "goodput": good / OVERLOAD_S / best,
        "offered_per_second": len(answered) / outcome.wall_s,
        "refused_share": refused / len(answered),
        "late_or_failed": len(answered) - good - refused,
        "grown_mb": peak[0] - before_mb,
        "recovered": after.per_second / best,
    }


def figures(
    costs: dict[str, dict[str, list[Measured]]],
    raw_us: list[float],
    half: dict[str, list[Measured]],
    overload: dict[str, float],
) -> dict[str, object]:
    def cpu(ours: str, theirs: str, kind: str) -> float:
        pairs = zip(costs[ours][kind], costs[theirs][kind], strict=True)
        return statistics.median(a.cpu_us / b.cpu_us for a, b in pairs)

    def p99(name: str) -> float:
        return statistics.median(m.p99_ms for m in half[name])

    batch_us = statistics.median(m.cpu_us for m in costs["score"]["batch"])
    return {
        "score_vs_fastapi_cpu": cpu("score", "fastapi", "single"),
        "score_vs_litserve_cpu": cpu("score", "litserve", "single"),
        "score_vs_mlflow_cpu": cpu("score", "mlflow", "single"),
        "batch_vs_fastapi_cpu": cpu("score", "fastapi", "batch"),
        "batch_vs_raw_cpu": batch_us / statistics.median(raw_us),
        "full_vs_fastapi_cpu": cpu("full", "fastapi", "single"),
        "full_p99_vs_fastapi": p99("full") / p99("fastapi"),
        "full_p99_ms": p99("full"),
        "overload_goodput": overload["goodput"],
        **{f"overload_{name}": value for name, value in overload.items() if name != "goodput"},
        **{
            f"{name}_{kind}_cpu_us": statistics.median(m.cpu_us for m in found)
            for name, kinds in costs.items()
            for kind, found in kinds.items()
        },
    }


if __name__ == "__main__":
    main()
