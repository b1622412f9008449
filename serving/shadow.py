"""Challengers in processes of their own, fed what the champion answered, without ever being waited for.

What connects them is a socket of whole messages that the kernel bounds: where a challenger is slow, hangs or is gone,
sending fails at once and the message is dropped and counted. A challenger runs only when no other process wants the
CPU, and within its memory. See `serving.challenger` for the other side.
"""

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from serving.challenges import Challenge
from serving.live import Event
from serving.metrics import Metrics

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_QUEUE_BYTES = 4 << 20
_MAX_MEMORY = 3 << 30
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 300.0


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
    num_dropped: int = 0
    num_starts: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _socket: socket.socket | None = None
    _next_start: float = 0.0
    _wait_s: float = field(default=_FIRST_WAIT_S)

    def offer(self, data: bytes) -> None:
        """Leave a message, or drop it; never waits."""
        if self._socket is None:
            self.num_dropped += 1
            return
        try:
            self._socket.send(data, socket.MSG_DONTWAIT)
        except OSError:  # full, too long for the kernel, or nobody there
            self.num_dropped += 1

    def tend(self) -> None:
        """Start it, or start it again when its wait is over."""
        if self._process and self._process.poll() is None:
            return
        if self._process:
            _log.warning("challenger %s ended with %s", self.challenge.release[:12], self._process.returncode)
            self._let_go()
            self._next_start = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        if time.monotonic() >= self._next_start:
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [*self.command, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
            )
        # from here, so that this holds before it imports anything
        os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))
        resource.prlimit(self._process.pid, resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
        self._socket, self.num_starts = ours, self.num_starts + 1

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
            self._socket = None


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
        kept = {c: running.pop(c) if c in running else Shadow(c, self._command(c)) for c in wanted}
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

    def _command(self, challenge: Challenge) -> list[str]:
        named = [challenge.detector, challenge.release, challenge.policy]
        return [sys.executable, "-m", "serving.challenger", str(self._home), self._stores, *named]
