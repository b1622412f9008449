"""One process of `mews up`: what to start, how to see that it is well, and how it comes back when it dies."""

import http.client
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestration.process_tree import MARK, kill_marked

HOST = "127.0.0.1"
PROBE_S = 2.0  # between two looks at a process's health
STEADY_S = 60.0  # what lived this long comes back without growing delay
LONGEST_DELAY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """One line of the table: what to start and how to see that it is well."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    health_path: str | None = None  # None: it is well while it lives
    patience_s: float = 180.0  # without a good answer for so long it is restarted; a cold MLflow took 41 s under load

    @property
    def link(self) -> str:
        """Where a person finds it."""
        return f"http://{HOST}:{self.port}" if self.health_path else ""


class State(StrEnum):
    """How a process is."""

    STARTING = "starting"
    UP = "up"
    SILENT = "not answering"
    WAITING = "restarting"


class Child:
    """One process, started again whenever it dies."""

    def __init__(self, process: Process, *, mark: str, log: Path, life: int) -> None:
        self.process, self.log = process, log
        self.state, self.num_restarts, self.note = State.WAITING, 0, ""
        self._mark, self._life = mark, life
        self._popen: subprocess.Popen[bytes] | None = None
        self._num_failures = 0
        self._due = self._started = self._answered = self._probe_due = 0.0

    @property
    def pid(self) -> int | None:
        """Its number while it runs."""
        return self._popen.pid if self._popen else None

    def report(self) -> dict[str, Any]:
        """How it is, as plain values."""
        return {
            "name": self.process.name,
            "pid": self.pid,
            "state": self.state,
            "restarts": self.num_restarts,
            "link": self.process.link,
            "note": self.note,
        }

    def tick(self, now: float) -> None:
        """Start it when it is due, notice its death, and restart it when it has been silent for too long."""
        if self._popen is None:
            if now >= self._due:
                self._start(now)
        elif (code := self._popen.poll()) is not None:
            self._bury(now, f"exit {code}")
        elif now >= self._probe_due:
            self._probe(now)

    def _start(self, now: float) -> None:
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.process.command,
                env={**os.environ, **self.process.env, MARK: self._mark},
                stdin=self._life,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.state, self._started, self._answered = State.STARTING, now, now
        self._probe_due = now

    def _bury(self, now: float, why: str) -> None:
        kill_marked(self._mark)  # a worker that outlived it may still hold the port
        self._num_failures = 0 if now - self._started > STEADY_S else self._num_failures + 1
        delay_s = min(LONGEST_DELAY_S, 0.25 * 2**self._num_failures)
        self.state, self.note, self._due = State.WAITING, f"{why}, see {self.log.name}", now + delay_s
        self.num_restarts += 1
        self._popen = None

    def _probe(self, now: float) -> None:
        self._probe_due = now + (PROBE_S if self.state is State.UP else PROBE_S / 4)
        if self.process.health_path is None or is_answering(self.process):
            self.state, self.note, self._answered = State.UP, "", now
        elif self.state is State.UP:
            self.state = State.SILENT
        if now - self._answered > self.process.patience_s:
            self.end(signal.SIGKILL)
            self.wait(5)
            self._bury(now, f"no answer for {self.process.patience_s:.0f} s")

    def end(self, number: signal.Signals) -> None:
        """Signal the whole group, as a terminal's Ctrl-C would."""
        if self._popen and self._popen.poll() is None:
            os.killpg(self._popen.pid, number)

    def wait(self, timeout_s: float) -> None:
        """Give it this long to go."""
        try:
            if self._popen:
                self._popen.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            self.note = "killed"


def is_answering(process: Process) -> bool:
    """Whether it answers its health path with anything but a server error."""
    connection = http.client.HTTPConnection(HOST, process.port, timeout=1)
    try:
        connection.request("GET", process.health_path or "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
