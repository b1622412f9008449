"""Challengers in processes of their own, fed what the champion answered, without ever being waited for.

A request leaves its events in a bounded queue and wakes nobody. Each second the follower's thread sends what is there,
together, so that a challenger works and writes its log in few bursts. The socket is one of whole messages that the
kernel bounds: where a challenger is slow, hangs or is gone, sending fails at once, and what it did not get is counted.

A challenger runs only when no other process wants the CPU, and within the memory that its release can be expected to
take: what leaks is stopped before it has pushed others out of caches. See `serving.challenger` for the other side.
"""

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from serving.challenges import Challenge
from serving.deployment import Shelves
from serving.live import Event
from serving.metrics import Metrics

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_QUEUE_BYTES = 4 << 20
_TOGETHER_BYTES = 128 << 10  # sent in one piece; the kernel's usual limit is 208 KiB
_MEMORY = 384 << 20  # measured: 140 MB before a release is loaded
_COPIES = 4  # of a release: as a file, as a graph, packed for the processor, and what is computed from it
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0


class Message(msgspec.Struct, frozen=True, array_like=True):
    """The events of one request, as the champion saw them."""

    request_id: str
    caller: str
    events: list[dict[str, object]]


@dataclass
class Shadow:
    """One challenger's process, started again after longer and longer waits when it dies."""

    challenge: Challenge
    command: Sequence[str]
    max_memory: int
    num_dropped: int = 0
    num_starts: int = 0
    _waiting: list[bytes] = field(default_factory=list)
    _num_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _process: "subprocess.Popen[bytes] | None" = None
    _socket: socket.socket | None = None
    _next_start: float = 0.0
    _wait_s: float = field(default=_FIRST_WAIT_S)

    def offer(self, data: bytes) -> None:
        """Leave a message, or drop it; never waits."""
        with self._lock:
            if self._socket is None or self._num_bytes + len(data) > _QUEUE_BYTES:
                self.num_dropped += 1
                return
            self._waiting.append(data)
            self._num_bytes += len(data)

    def tend(self) -> None:
        """Send what waits; start the process, or start it again when its wait is over."""
        self._send()
        self._keep_alive()

    def _send(self) -> None:
        with self._lock:
            waiting, self._waiting, self._num_bytes = self._waiting, [], 0
        for group in _together(waiting):
            try:
                assert self._socket is not None
                self._socket.send(b"\n".join(group), socket.MSG_DONTWAIT)
            except OSError:  # full, too long for the kernel, or nobody there
                with self._lock:
                    self.num_dropped += len(group)

    def _keep_alive(self) -> None:
        if self._process and self._process.poll() is None:
            return
        if self._process:
            self._wait(f"ended with {self._process.returncode}")
            self._process = None
        if time.monotonic() >= self._next_start:
            try:
                self._start()
            except OSError as error:  # no memory or no process is left
                self._wait(f"does not start: {type(error).__name__}")

    def _wait(self, why: str) -> None:
        _log.warning("challenger %s %s", self.challenge.release[:12], why)
        self._let_go()
        self._next_start = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [*self.command, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
            )
        # from here, so that this holds before it imports anything
        os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))
        resource.prlimit(self._process.pid, resource.RLIMIT_DATA, (self.max_memory, self.max_memory))
        self.num_starts += 1

    def close(self) -> None:
        """End the process; it has a second to seal its log."""
        self._let_go()
        if not self._process:
            return
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)  # also ends one that is stopped
            self._process.wait()

    def _let_go(self) -> None:
        if self._socket:
            self._socket.close()  # the process sees the end of its events
        with self._lock:
            self.num_dropped += len(self._waiting)
            self._waiting, self._num_bytes, self._socket = [], 0, None


def _together(messages: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Groups of messages that go in one piece; one that is longer goes alone."""
    group, size = list[bytes](), 0
    for message in messages:
        if group and size + len(message) > _TOGETHER_BYTES:
            yield group
            group, size = [], 0
        group.append(message)
        size += len(message)
    if group:
        yield group


class Shadows:
    """The shadows of every detector; `follow` and `tend` belong to one thread, `offer` to the event loop."""

    def __init__(self, home: Path, stores: Mapping[str, str], metrics: Metrics) -> None:
        self._home, self._stores, self._metrics = home, json.dumps(dict(stores)), metrics
        self._of: dict[str, tuple[Shadow, ...]] = {}

    def offer(self, detector: str, request_id: str, caller: str, events: Sequence[Event]) -> None:
        """Let the shadows of a detector see what was answered; whatever goes wrong is theirs alone."""
        shadows = self._of.get(detector)
        if not shadows:
            return
        try:
            data = _encode((request_id, caller, events))
        except (ValueError, TypeError):  # a text that JSON cannot say again
            return
        for shadow in shadows:
            shadow.offer(data)

    @property
    def running(self) -> list[Challenge]:
        """The challenges that have a process, or are waiting to have one again."""
        return [shadow.challenge for shadows in self._of.values() for shadow in shadows]

    def follow(self, wanted: Sequence[Challenge]) -> None:
        """Run exactly these challenges."""
        running = {shadow.challenge: shadow for shadows in self._of.values() for shadow in shadows}
        kept = {c: running.pop(c) if c in running else self._shadow(c) for c in wanted}
        detectors = {challenge.detector for challenge in kept}
        self._of = {d: tuple(s for c, s in kept.items() if c.detector == d) for d in detectors}
        for shadow in running.values():
            shadow.close()
        self.tend()

    def tend(self) -> None:
        """Start what is not running, and say how much was dropped."""
        for shadows in self._of.values():
            for shadow in shadows:
                shadow.tend()
                labels = (shadow.challenge.detector, shadow.challenge.release)
                self._metrics.shadow_dropped.labels(*labels).set(shadow.num_dropped)
                self._metrics.shadow_starts.labels(*labels).set(shadow.num_starts)

    def close(self) -> None:
        """End all of them."""
        self.follow([])

    def _shadow(self, challenge: Challenge) -> Shadow:
        named = [challenge.detector, challenge.release, challenge.policy]
        command = [sys.executable, "-m", "serving.challenger", str(self._home), self._stores, *named]
        release = Shelves(self._home / "releases", self._home / "policies").release(*named[:2])
        size = sum(path.stat().st_size for path in release.rglob("*"))
        return Shadow(challenge, command, max_memory=_MEMORY + _COPIES * size)
