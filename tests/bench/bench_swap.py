"""Ten thousand requests while the release changes twenty times, through the real ledger; and what bad challengers cost.

A challenger hangs (stopped), crashes (killed again and again) or leaks (a thread in its process that takes memory and
CPU as fast as it can); the champion's p99 is compared with that of the same service without challengers, in turn.
"""

import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from serving import challenges
from serving.bundle import Bundle
from tests.bench.harness import IS_SMALL, report
from tests.bench.homes import api_key, deployed, ngram_spec, real_texts, trained
from tests.bench.load import Outcome, Plan, load, request
from tests.serving.service.conftest import Team
from tests.serving.service.served import Served, served

REQUESTS, SWAPS = (1_000, 3) if IS_SMALL else (10_000, 20)
CONNECTIONS = 8
ROUNDS = 1 if IS_SMALL else 5
ROUND_REQUESTS = 300 if IS_SMALL else 1_500
SEEN_S = 2.0  # the service looks at the ledger each second
LIMITS = {
    "failed_requests": "= 0",
    "requests": ">= 10000",
    "swaps": ">= 20",
    "p99_ratio": "<= 2",
    "challenger_p99_ratio": "<= 1.1",
}
LEAK = """
import sys
if "serving.challenger" in " ".join(sys.orig_argv):
    import threading
    def leak():
        kept = []
        while True:
            kept.append(bytearray(1 << 20))
    threading.Thread(target=leak, daemon=True).start()
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = ngram_spec()
        run_dir = trained(folder, spec)
        team, first, policy = deployed(folder / "home", run_dir, spec)
        releases = [first, *(team.seal(run_dir, note=f"number {number}") for number in range(3))]
        team.sign(*releases[1:])
        requests = asked(api_key(team.home))
        with served(team.home) as server:
            swapped, quiet_ms, named_wrongly, num_swaps = swap(server, team, releases, policy, requests)
        ratios = {kind: challenged(team, kind, releases[1], policy, requests, folder) for kind in KINDS}
    worst = max(statistics.median(r["ratio"] for r in rounds) for rounds in ratios.values())
    failed = len(swapped.statuses) - swapped.num(200) + named_wrongly
    figures = {
        "failed_requests": failed + sum(int(r["failed"]) for rounds in ratios.values() for r in rounds),
        "requests": len(swapped.statuses),
        "swaps": num_swaps,
        "p99_ratio": p99_ms(swapped) / quiet_ms,
        "challenger_p99_ratio": worst,
        "named_an_unapproved_release": named_wrongly,
        **{f"{kind}_p99_ratio": statistics.median(r["ratio"] for r in rounds) for kind, rounds in ratios.items()},
    }
    report("swap", figures, limits=LIMITS, raw={"ratios": ratios, "statuses": Counter(swapped.statuses)})


def asked(key: str) -> list[bytes]:
    bodies = [{"detector": "content", "event": {"text": text, "account_id": "a"}} for text in real_texts(1000)]
    return [request("/v1/decisions", json.dumps(body).encode(), authorization=f"Bearer {key}") for body in bodies]


def p99_ms(outcome: Outcome) -> float:
    return statistics.quantiles(outcome.seconds, n=100)[-1] * 1e3


def swap(
    server: Served, team: Team, releases: list[Bundle], policy: Bundle, requests: list[bytes]
) -> tuple[Outcome, float, int, int]:
    """The load with swaps, the p99 without, how many answers named what was not approved, and how many swaps."""
    plan = Plan(server.port, requests, CONNECTIONS, seconds=600, most=ROUND_REQUESTS, keep_bodies=True)
    load(plan)
    quiet = load(plan)
    revoked: dict[str, float] = {}
    num_swaps, is_over = [0], threading.Event()

    def change() -> None:
        """Deploy in turn; the last but one is revoked while it serves, which is a change as well."""
        while not is_over.is_set():
            number = num_swaps[0]
            team.deploy(releases[number % (len(releases) - 1)], policy)
            num_swaps[0] += 1
            if number == SWAPS // 2:
                team.deploy(releases[-1], policy)
                time.sleep(SEEN_S)
                team.revoke(releases[-1])
                revoked[releases[-1].digest] = time.perf_counter() + SEEN_S
                num_swaps[0] += 2
            time.sleep(SEEN_S)

    changing = threading.Thread(target=change)
    changing.start()
    outcome, rate = Outcome(), quiet.num(200) / quiet.wall_s
    while changing.is_alive() and (len(outcome.statuses) < REQUESTS or num_swaps[0] < SWAPS):
        found = load(Plan(server.port, requests, CONNECTIONS, seconds=60, most=ROUND_REQUESTS, keep_bodies=True))
        for name in ("seconds", "at", "statuses", "bodies"):
            getattr(outcome, name).extend(getattr(found, name))
    is_over.set()
    changing.join()
    assert rate
    wrong = sum(
        revoked.get(json.loads(body)["decisions"][0]["release"], at) < at
        for at, body, status in zip(outcome.at, outcome.bodies, outcome.statuses, strict=True)
        if status == 200
    )
    unknown = {json.loads(b)["decisions"][0]["release"] for b in outcome.bodies if b} - {r.digest for r in releases}
    return outcome, p99_ms(quiet), wrong + len(unknown), num_swaps[0]


def hanging(server: Served) -> None:
    for process in challengers(server):
        process.send_signal(signal.SIGSTOP)


def crashing(server: Served) -> None:
    for process in challengers(server):
        process.kill()


KINDS: dict[str, Callable[[Served], None] | None] = {"hanging": hanging, "crashing": crashing, "leaking": None}


def challenged(
    team: Team, kind: str, release: Bundle, policy: Bundle, requests: list[bytes], folder: Path
) -> list[dict[str, float]]:
    """Rounds on two services of one home, alike but for the challenger of the second; the p99 of each at one rate."""
    (folder / "leak").mkdir(exist_ok=True)
    (folder / "leak" / "sitecustomize.py").write_text(LEAK)
    env = {"PYTHONPATH": f".{os.pathsep}{folder / 'leak'}"} if kind == "leaking" else {}
    rounds = []
    with served(team.home, env=env) as server:
        plan = Plan(server.port, requests, CONNECTIONS, seconds=60, most=ROUND_REQUESTS)
        rate = load(plan).num(200) / load(plan).wall_s / 4
        at_rate = Plan(server.port, requests, 32, seconds=60, most=ROUND_REQUESTS, rate=rate)
        for _ in range(ROUNDS):
            alone = load(at_rate)
            entry = challenges.challenge(team.ledger, team.people, release, policy, by="tom")
            with misbehaving(server, KINDS[kind]):
                beside = load(at_rate)
            challenges.end(team.ledger, entry, by="tom", reason="measured")
            time.sleep(SEEN_S)
            num_failed = sum(len(o.statuses) - o.num(200) for o in (alone, beside))
            rounds.append({"ratio": p99_ms(beside) / p99_ms(alone), "failed": num_failed})
    return rounds


@contextmanager
def misbehaving(server: Served, act: Callable[[Served], None] | None) -> Iterator[None]:
    """While the challenger runs, and something is done to it each 0.2 s."""
    deadline = time.monotonic() + 60
    while not challengers(server):
        assert time.monotonic() < deadline, "the challenger did not start"
        time.sleep(0.1)
    is_over = threading.Event()

    def keep() -> None:
        while act and not is_over.wait(0.2):
            act(server)

    acting = threading.Thread(target=keep)
    acting.start()
    try:
        yield
    finally:
        is_over.set()
        acting.join()


def challengers(server: Served) -> list[psutil.Process]:
    """The challengers' processes below a server."""
    found = []
    for process in psutil.Process(server.pid).children(recursive=True):
        try:
            if "serving.challenger" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


if __name__ == "__main__":
    main()
