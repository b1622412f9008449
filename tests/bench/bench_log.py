"""Whether a decision that was acknowledged can be lost or doubled, and what writing it down costs.

Two services of one home answer a client process; again and again one of them, or only its worker, is killed with
SIGKILL and started again. Meanwhile and afterwards the log is compacted, and every acknowledged decision is looked for.
"""

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

import psutil

from feature_repo.lake import Lake
from orchestration.validation import validate_batches
from serving.compaction import compact
from serving.segments import waiting
from serving.vault import Vault
from tests.bench.harness import IS_SMALL, report
from tests.bench.homes import api_key, deployed, ngram_spec, real_texts, trained
from tests.bench.load import request
from tests.bench.servers import Server, measure
from tests.serving.service.served import wait_until

NUM_KILLS = 4 if IS_SMALL else 50
ROUNDS, ROUND_REQUESTS = (2, 500) if IS_SMALL else (7, 4000)
PATIENCE_S = 120.0
FIRST_DAY = date(2018, 1, 1)
LIMITS = {
    "acknowledged_lost": "= 0",
    "duplicated": "= 0",
    "kills": ">= 50",
    "recovery_p95_s": "<= 10",
    "log_cpu_share": "<= 0.10",
}


@dataclass
class Service:
    """One `bentoml serve` on a port of this machine."""

    home: Path
    target: str = "serving.service:Mews"
    port: int = 0
    process: psutil.Popen | None = None

    def start(self) -> None:
        """Start it; it answers some seconds later."""
        self.port = self.port or free_port()
        command = [
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            self.target,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        environment = {**os.environ, "MEWS_HOME": str(self.home), "PYTHONPATH": ".", "BENTOML_DO_NOT_TRACK": "true"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = psutil.Popen(command, env=environment, start_new_session=True, **quiet)

    def tree(self) -> list[psutil.Process]:
        """The master and its workers."""
        assert self.process is not None
        return [self.process, *self.process.children(recursive=True)]

    def kill_worker(self) -> None:
        """SIGKILL to the worker alone; its master starts another one."""
        worker = self.tree()[-1]
        worker.kill()
        psutil.wait_procs([worker])

    def kill(self) -> None:
        """SIGKILL to all of it at once, and a new start, as a supervisor does."""
        tree = self.tree()
        for victim in tree:
            victim.kill()
        psutil.wait_procs(tree)
        self.start()


@dataclass
class Acks:
    """What the client was told, read as it is written."""

    path: Path
    ids: list[tuple[str, str]] = field(default_factory=list)
    latest: dict[int, float] = field(default_factory=dict)  # by port
    _at: int = 0

    def read(self) -> None:
        """Take in the lines that are whole."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            whole = file.read().rpartition(b"\n")[0]
        self._at += len(whole) + 1 if whole else 0
        for line in whole.decode().splitlines():
            moment, port, decision_id, event_id = line.split()
            self.ids.append((decision_id, event_id))
            self.latest[int(port)] = float(moment)

    def wait(self, port: int, since: float) -> float:
        """Seconds from a moment until a port acknowledged something."""
        deadline = time.monotonic() + PATIENCE_S
        while self.latest.get(port, 0.0) <= since:
            assert time.monotonic() < deadline, f"port {port} acknowledged nothing for {PATIENCE_S:.0f} s"
            time.sleep(0.02)
            self.read()
        return self.latest[port] - since


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec, home = ngram_spec(), Path(folder) / "home"
        deployed(home, trained(Path(folder), spec), spec)
        kills, recovery_s, acks = killed_under_load(home)
        lost, doubled, num_events = looked_for(home, acks)
        cpu = cpu_per_request(home)
    shares = [1 - without / with_log for with_log, without in cpu]
    figures = {
        "acknowledged_lost": lost,
        "duplicated": doubled,
        "kills": kills,
        "recovery_p95_s": statistics.quantiles(recovery_s, n=20)[-1],
        "log_cpu_share": statistics.median(shares),
        "acknowledged": len(acks),
        "events_in_lake": num_events,
    }
    report("log", figures, limits=LIMITS, raw={"recovery_s": recovery_s, "cpu_us_with_and_without": cpu})


def killed_under_load(home: Path) -> tuple[int, list[float], list[tuple[str, str]]]:
    """Kill and start again; (kills, seconds to the next acknowledgement, what was acknowledged)."""
    chance, recovery_s = random.Random(7), []
    with serving([Service(home), Service(home)]) as services, asked(home, services, connections=8) as acks:
        for service in services:
            acks.wait(service.port, 0.0)
        for number in range(NUM_KILLS):
            service = chance.choice(services)
            time.sleep(chance.uniform(0.1, 1.0))
            killed = time.monotonic()
            (service.kill_worker if number % 2 else service.kill)()
            time.sleep(0.2)  # what was answered just before is noted by now
            dead_s = time.monotonic() - killed
            if number % 5 == 4:
                bring_back(home)  # the log of the living is compacted while they write
            recovery_s.append(dead_s + acks.wait(service.port, killed + dead_s))
        acks.read()
    return NUM_KILLS, recovery_s, acks.ids


def bring_back(home: Path) -> None:
    """Compact every day of the log."""
    folder = home / "decisions"
    compact(folder, lake(home), Vault(home / "keys"), days=waiting(folder), first_day=FIRST_DAY)


def looked_for(home: Path, acks: Sequence[tuple[str, str]]) -> tuple[int, int, int]:
    """(acknowledged decisions and events that the lake lacks, those that it has twice, events in the lake)."""
    bring_back(home)
    validate_batches(lake(home), "requests", lake(home).days("inbox", "requests"))
    with lake(home).connect() as connection:
        lost = doubled = 0
        for table, key, ids in (
            ("decisions", "decision_id", {a[0] for a in acks}),
            ("requests", "event_id", {a[1] for a in acks}),
        ):
            found = dict(connection.execute(f"SELECT {key}, count(*) FROM {table} GROUP BY 1").fetchall())
            lost += len(ids - found.keys())
            doubled += sum(number > 1 for number in found.values())
        [(num_events,)] = connection.execute("SELECT count(*) FROM requests").fetchall()
    return lost, doubled, num_events


def cpu_per_request(home: Path) -> list[tuple[float, float]]:
    """Microseconds of CPU of the whole tree for each request at saturation, with the log and without it, by round."""
    targets = ("serving.service:Mews", "tests.bench.service_without_log:Mews")
    found: dict[str, list[float]] = {target: [] for target in targets}
    bodies = [{"detector": "content", "event": {"text": text, "account_id": "a"}} for text in real_texts(1000)]
    key = {"authorization": f"Bearer {_key(home)}"}
    requests = {"single": [request("/v1/decisions", json.dumps(body).encode(), **key) for body in bodies]}
    with serving([Service(home, target) for target in targets]) as services:
        for service in services:
            assert service.process is not None
            wait_until(f"http://127.0.0.1:{service.port}/readyz", service.process)
        for number in range(-1, ROUNDS):  # the first round warms up
            for service in services:
                assert service.process is not None
                server = Server(service.port, service.process.pid, requests)
                measured = measure(server, "single", connections=32, most=ROUND_REQUESTS)
                assert not measured.num_failed
                if number >= 0:
                    found[service.target].append(measured.cpu_us)
    return list(zip(*found.values(), strict=True))


@contextmanager
def serving(services: list[Service]) -> Iterator[list[Service]]:
    """Start services, and end them as an operator does."""
    for service in services:
        service.start()
    try:
        yield services
    finally:
        for service in services:
            assert service.process is not None
            service.process.terminate()
        for service in services:
            _, left = psutil.wait_procs(service.tree(), timeout=30)
            for process in left:
                process.kill()


@contextmanager
def asked(home: Path, services: Sequence[Service], *, connections: int) -> Iterator[Acks]:
    """A client process that asks these services as fast as they answer."""
    path = home.parent / f"acks-{time.monotonic_ns()}"
    path.touch()
    ports = [str(service.port) for service in services]
    command = [sys.executable, "-m", "tests.bench.log_client", str(path), _key(home), str(connections), *ports]
    client = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield Acks(path)
    finally:
        client.communicate()


@cache
def _key(home: Path) -> str:
    return api_key(home)


def lake(home: Path) -> Lake:
    """The lake of the home."""
    return Lake(home / "lake", memory_limit="2GB")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()
