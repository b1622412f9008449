"""Load on a server of this machine: connections that ask one after another, or arrivals at a fixed rate; loopback only.

It runs in a process of its own, so that the CPU that asking takes is not counted as the server's, and makes no task
or future for a request: at five times what a server can answer these took the server's cores. Requests are whole byte
strings made beforehand; an answer is read up to its length, or its last chunk.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import msgspec
import psutil
import uvloop

HOST = "127.0.0.1"
_LOOK_EVERY_S = 0.25  # for requests that were not answered in time


@dataclass
class Outcome:
    """What came of a load: seconds per request, the status of each (0: no answer), bodies if asked for."""

    wall_s: float = 0.0
    seconds: list[float] = field(default_factory=list)  # from when it was due
    service_s: list[float] = field(default_factory=list)  # from when it was sent
    at: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def num(self, *statuses: int) -> int:
        return sum(status in statuses for status in self.statuses)

    def add(self, later: "Outcome") -> None:
        """Take in what came of another load."""
        self.wall_s += later.wall_s
        for name in ("seconds", "service_s", "at", "statuses", "bodies"):
            getattr(self, name).extend(getattr(later, name))


@dataclass(frozen=True)
class Plan:
    """Who asks what: `rate` 0 means that each connection asks again as soon as it was answered."""

    port: int
    requests: Sequence[bytes]
    connections: int
    seconds: float
    rate: float = 0.0
    most: int = 1 << 60
    timeout_s: float = 30.0
    keep_bodies: bool = False


def request(path: str, body: bytes, **headers: str) -> bytes:
    """A POST as it goes over the wire."""
    lines = {"host": HOST, "content-type": "application/json", "content-length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Load:
    """Asks what a plan says.

    The clock of arrivals at a rate does not wait for answers: one that finds no connection free is asked as soon as
    there is one, and its lateness counts as latency.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.outcome = plan, Outcome()
        self._number = 0  # of the request that is next
        self._num_asking = 0
        self._free: deque[Connection] = deque()
        self._is_over = asyncio.Event()

    async def run(self) -> Outcome:
        connections = [Connection(self) for _ in range(self.plan.connections)]
        await asyncio.gather(*(connection.open() for connection in connections))
        self._started = time.perf_counter()
        self._end = self._started + self.plan.seconds
        self._free.extend(connections)
        self._ask_due()
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), _LOOK_EVERY_S)
            for connection in connections:
                connection.give_up_if_late()
        self.outcome.wall_s = time.perf_counter() - self._started
        for connection in connections:
            connection.transport.abort()
        return self.outcome

    def _ask_due(self) -> None:
        """Ask what is due, on the connections that are free, and come back when the next one is."""
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        while self._free and self._is_left(now):
            due = self._due(now)
            if due > now:
                loop.call_later(due - now, self._ask_due)
                return
            self._number += 1
            self._num_asking += 1
            self._free.popleft().ask(self.plan.requests[(self._number - 1) % len(self.plan.requests)], due)
        self._end_if_done(now)

    def _end_if_done(self, now: float) -> None:
        if not self._num_asking and not self._is_left(now):
            self._is_over.set()

    def _is_left(self, now: float) -> bool:
        return self._number < self.plan.most and max(now, self._due(now)) < self._end

    def _due(self, now: float) -> float:
        """When the next request is to be asked."""
        return self._started + self._number / self.plan.rate if self.plan.rate else now

    def answered(self, connection: "Connection", status: int, body: bytes) -> None:
        now, outcome = time.perf_counter(), self.outcome
        outcome.seconds.append(now - connection.due)
        outcome.service_s.append(now - connection.sent)
        outcome.at.append(now)
        outcome.statuses.append(status)
        if self.plan.keep_bodies:
            outcome.bodies.append(body)
        self._num_asking -= 1
        self._free.append(connection)
        if len(self._free) == 1:  # otherwise a timer is set for what is due next
            self._ask_due()
        else:
            self._end_if_done(now)


class Connection(asyncio.Protocol):
    """One connection, with at most one request under way; where the server closed it, the next request opens it."""

    def __init__(self, load: Load) -> None:
        self._load, self._buffer = load, b""
        self._is_open = self._is_asking = False
        self.due = self.sent = 0.0

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, HOST, self._load.plan.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not say that it is one
        self._is_open, self._buffer = True, b""

    def connection_lost(self, _: Exception | None) -> None:
        self._is_open = False
        if self._is_asking:
            self._end(0, b"")

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if (found := whole(self._buffer)) and self._is_asking:
            self._buffer = b""
            self._end(*found)

    def ask(self, content: bytes, due: float) -> None:
        self.due, self.sent, self._is_asking = due, time.perf_counter(), True
        if self._is_open:
            self.transport.write(content)
        else:
            self._opening = asyncio.create_task(self._open_and_ask(content))

    async def _open_and_ask(self, content: bytes) -> None:
        try:
            await self.open()
            self.transport.write(content)
        except OSError:
            self._end(0, b"")

    def give_up_if_late(self) -> None:
        if self._is_asking and self._is_open and time.perf_counter() - self.sent > self._load.plan.timeout_s:
            self.transport.abort()

    def _end(self, status: int, body: bytes) -> None:
        self._is_asking = False
        self._load.answered(self, status, body)


def whole(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of a complete answer."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, body = data[:head_end].lower(), data[head_end + 4 :]
    at = head.find(b"content-length: ")
    if at >= 0:
        length = int(head[at + 16 :].partition(b"\r\n")[0])
        return (int(data[9:12]), body) if len(body) >= length else None
    return (int(data[9:12]), body) if body.endswith(b"0\r\n\r\n") else None


def load(plan: Plan) -> Outcome:
    """Run the load in a process of its own."""
    command = [sys.executable, "-c", "from tests.bench.load import main; main()"]
    done = subprocess.run(command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Outcome)


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and everything below it that lives."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in [root, *root.children(recursive=True)]]
    return sum(t.user + t.system for t in times)


def tree_mb(pid: int) -> float:
    """Unique memory of a process tree."""
    root = psutil.Process(pid)
    return sum(p.memory_full_info().uss for p in [root, *root.children(recursive=True)]) / 1e6


def main() -> None:
    """The other side of `load`."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    outcome = msgspec.json.encode(uvloop.run(Load(plan).run()))
    with os.fdopen(sys.stdout.fileno(), "wb") as pipe:  # sys.stdout, if unbuffered, may write only a part
        pipe.write(outcome)
