"""Load on a server of this machine: connections that ask one after another, or arrivals at a fixed rate; loopback only.

It runs in a process of its own, so that the CPU that asking takes is not counted as the server's. Requests are whole
byte strings made beforehand; an answer is read up to its length, or its last chunk.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import psutil
import uvloop

HOST = "127.0.0.1"


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


class Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self.buffer = b""
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.is_open = transport, True

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        if self.answer and not self.answer.done():
            self.answer.set_result((0, b""))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if (found := whole(self.buffer)) and self.answer and not self.answer.done():
            self.buffer = b""
            self.answer.set_result(found)

    def ask(self, content: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(content)
        return self.answer


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


async def _load(plan: Plan) -> Outcome:
    outcome, loop = Outcome(), asyncio.get_running_loop()
    started = time.perf_counter()
    end, turn = started + plan.seconds, iter(range(plan.most))

    async def one(index: int) -> None:
        connection = await _connect(plan.port)
        while (now := time.perf_counter()) < end and (number := next(turn, None)) is not None:
            asked = now
            if plan.rate:  # the clock of the arrivals does not wait for answers: lateness counts as latency
                asked = started + number / plan.rate
                if asked >= end:
                    return
                if asked > now:
                    await asyncio.sleep(asked - now)
            if not connection.is_open:
                connection = await _connect(plan.port)
            sent = time.perf_counter()
            future = connection.ask(plan.requests[number % len(plan.requests)])
            timer = loop.call_later(plan.timeout_s, connection.transport.abort)
            status, body = await future
            timer.cancel()
            answered = time.perf_counter()
            outcome.seconds.append(answered - asked)
            outcome.service_s.append(answered - sent)
            outcome.at.append(answered)
            outcome.statuses.append(status)
            if plan.keep_bodies:
                outcome.bodies.append(body)
        connection.transport.abort()

    await asyncio.gather(*(one(index) for index in range(plan.connections)))
    outcome.wall_s = time.perf_counter() - started
    return outcome


async def _connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, HOST, port)
    return connection


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
    outcome = msgspec.json.encode(uvloop.run(_load(plan)))
    with os.fdopen(sys.stdout.fileno(), "wb") as pipe:  # sys.stdout, if unbuffered, may write only a part
        pipe.write(outcome)
