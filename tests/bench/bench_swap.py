"""Ten thousand requests while the release changes twenty times, through the real ledger; and what bad challengers cost.

A challenger hangs (stopped), crashes (killed again and again) or leaks (a thread in its process that takes memory as
fast as it can); the champion's p99 over all rounds is compared with that of the rounds between them without one.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
ROUNDS = 2 if IS_SMALL else 8
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
    kept = []
    def leak():
        while True:
            kept.append(b"x" * (1 << 20))
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
        changes = Changes(team, releases, policy)
        with served(team.home) as server:
            swapped, quiet = swap(server, changes, requests)
        found = {kind: challenged(team, kind, releases[1], policy, requests, folder) for kind in KINDS}
    named_wrongly = changes.num_named_wrongly(swapped)
    failed_beside = sum(one.num_failed for one in found.values())
    figures = {
        "failed_requests": len(swapped.statuses) - swapped.num(200) + named_wrongly + failed_beside,
        "requests": len(swapped.statuses),
        "swaps": changes.num,
        "p99_ratio": p99_ms(swapped) / p99_ms(quiet),
        "challenger_p99_ratio": max(one.ratio for one in found.values()),
        "named_an_unapproved_release": named_wrongly,
        "p99_ms": p99_ms(swapped),
        "quiet_p99_ms": p99_ms(quiet),
        **{f"{kind}_p99_ratio": one.ratio for kind, one in found.items()},
        **{f"{kind}_noise": one.noise for kind, one in found.items()},
        **{f"{kind}_alone_p99_ms": p99_ms(one.alone) for kind, one in found.items()},
    }
    raw = {
        "statuses": Counter(swapped.statuses),
        "seconds": {k: (o.alone.seconds, o.beside.seconds) for k, o in found.items()},
    }
    report("swap", figures, limits=LIMITS, raw=raw)


def asked(key: str) -> list[bytes]:
    bodies = [{"detector": "content", "event": {"text": text, "account_id": "a"}} for text in real_texts(1000)]
    return [request("/v1/decisions", json.dumps(body).encode(), authorization=f"Bearer {key}") for body in bodies]


def p99_ms(outcome: Outcome) -> float:
    return statistics.quantiles(outcome.seconds, n=100)[-1] * 1e3


@dataclass
class Changes:
    """Releases deployed in turn; one more is deployed and revoked while it serves, which is a change as well."""

    team: Team
    releases: list[Bundle]
    policy: Bundle
    num: int = 0
    refused_from: dict[str, float] = field(default_factory=dict)  # by digest: when answers must no longer name it

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Change again and again in a thread."""
        is_over = threading.Event()

        def change() -> None:
            *in_turn, last = self.releases
            while not is_over.wait(SEEN_S):
                if self.num == SWAPS // 2:
                    self._deploy(last)
                    time.sleep(SEEN_S)
                    self.team.revoke(last)
                    self.num += 1
                    self.refused_from[last.digest] = time.perf_counter() + SEEN_S
                else:
                    self._deploy(in_turn[(self.num + 1) % len(in_turn)])  # the first is served already

        changing = threading.Thread(target=change)
        changing.start()
        try:
            yield
        finally:
            is_over.set()
            changing.join()

    def _deploy(self, release: Bundle) -> None:
        self.team.deploy(release, self.policy)
        self.num += 1

    def num_named_wrongly(self, outcome: Outcome) -> int:
        """How many answers named a release that was not approved when they were read."""
        known = {release.digest for release in self.releases}
        answers = zip(outcome.at, outcome.bodies, outcome.statuses, strict=True)
        named = [(at, json.loads(body)["decisions"][0]["release"]) for at, body, status in answers if status == 200]
        return sum(digest not in known or at > self.refused_from.get(digest, at) for at, digest in named)


def swap(server: Served, changes: Changes, requests: list[bytes]) -> tuple[Outcome, Outcome]:
    """The load while releases change, and the same load before and after it."""
    plan = Plan(server.port, requests, CONNECTIONS, seconds=60, most=ROUND_REQUESTS, keep_bodies=True)
    load(plan)
    quiet, swapped = load(plan), Outcome()
    with changes.going_on():
        while len(swapped.statuses) < REQUESTS or changes.num < SWAPS:
            swapped.add(load(plan))
    quiet.add(load(plan))
    return swapped, quiet


def hanging(challenger: int) -> None:
    os.kill(challenger, signal.SIGSTOP)


def crashing(challenger: int) -> None:
    os.kill(challenger, signal.SIGKILL)


KINDS: dict[str, Callable[[int], None] | None] = {"hanging": hanging, "crashing": crashing, "leaking": None}


@dataclass
class Challenged:
    """What came of the same load without a challenger and beside one."""

    alone: Outcome = field(default_factory=Outcome)
    beside: Outcome = field(default_factory=Outcome)

    @property
    def ratio(self) -> float:
        return p99_ms(self.beside) / p99_ms(self.alone)

    @property
    def noise(self) -> float:
        """The same ratio among the rounds without a challenger, those of the second half to those of the first."""
        half = len(self.alone.seconds) // 2
        first, second = Outcome(seconds=self.alone.seconds[:half]), Outcome(seconds=self.alone.seconds[half:])
        return p99_ms(second) / p99_ms(first)

    @property
    def num_failed(self) -> int:
        return sum(len(outcome.statuses) - outcome.num(200) for outcome in (self.alone, self.beside))


def challenged(
    team: Team, kind: str, release: Bundle, policy: Bundle, requests: list[bytes], folder: Path
) -> Challenged:
    """Rounds without a challenger and with one, in turn and at one rate: a quarter of what the service can answer."""
    (folder / "leak").mkdir(exist_ok=True)
    (folder / "leak" / "sitecustomize.py").write_text(LEAK)
    env = {"PYTHONPATH": f".{os.pathsep}{folder / 'leak'}"} if kind == "leaking" else {}
    found = Challenged()
    with served(team.home, env=env) as server:
        [worker] = psutil.Process(server.pid).children()
        plan = Plan(server.port, requests, CONNECTIONS, seconds=60, most=ROUND_REQUESTS)
        load(plan)
        saturated = load(plan)
        rate = saturated.num(200) / saturated.wall_s / 4
        at_rate = Plan(server.port, requests, 32, seconds=60, most=ROUND_REQUESTS, rate=rate)
        for _ in range(ROUNDS):
            found.alone.add(load(at_rate))
            entry = challenges.challenge(team.ledger, team.people, release, policy, by="tom")
            with misbehaving(worker.pid, KINDS[kind]):
                found.beside.add(load(at_rate))
            challenges.end(team.ledger, entry, by="tom", reason="measured")
            wait_for(lambda: not challengers(worker.pid))
    return found


@contextmanager
def misbehaving(worker: int, act: Callable[[int], None] | None) -> Iterator[None]:
    """While the challenger runs, and something is done to it each 0.2 s."""
    wait_for(lambda: bool(challengers(worker)))
    is_over = threading.Event()

    def keep() -> None:
        while act and not is_over.wait(0.2):
            for challenger in challengers(worker):
                with suppress(ProcessLookupError):
                    act(challenger)

    acting = threading.Thread(target=keep)
    acting.start()
    try:
        yield
    finally:
        is_over.set()
        acting.join()


def wait_for(is_so: Callable[[], bool]) -> None:
    """Return when the service did what the ledger says."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "the service did not follow the ledger"
        time.sleep(0.1)


def challengers(worker: int) -> list[int]:
    """The challengers that a worker started, as the kernel lists them, since a walk over all processes takes CPU."""
    children = [pid for path in Path(f"/proc/{worker}/task").glob("*/children") for pid in path.read_text().split()]
    return [int(pid) for pid in children if b"serving.challenger" in _command(pid)]


def _command(pid: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


if __name__ == "__main__":
    main()
