"""Keeps the processes of `mews up` alive, shows how they are, and leaves none behind."""

import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestration.child import HOST, Child, Process, State
from orchestration.process_tree import kill_marked

TICK_S = 0.2
GRACE_S = 20.0  # for what ignores SIGTERM, as Dagster does when started in the background


class AlreadyRunning(RuntimeError):
    """Another supervisor holds this home."""


class PortTaken(RuntimeError):
    """A port that one of the processes needs is in use."""


class Supervisor:
    """The children of one `mews up`."""

    def __init__(self, processes: Sequence[Process], *, home: Path, mark: str, life: int) -> None:
        self.report_path, self._mark = home / "up.json", mark
        self._since = datetime.now(UTC)
        self.children = [
            Child(process, mark=f"{mark}{process.name}|", log=home / "logs" / f"{process.name}.log", life=life)
            for process in processes
        ]

    def tick(self) -> bool:
        """Look at every process once, and say whether anything changed."""
        now, before = time.monotonic(), self.report()
        for child in self.children:
            child.tick(now)
        is_changed = self.report() != before
        if is_changed:
            write_whole(self.report_path, json.dumps(self.report(), indent=2))
        return is_changed

    def report(self) -> dict[str, Any]:
        """Who runs here, and how each process is: what `up.json` holds."""
        since = f"{self._since:%Y-%m-%d %H:%M} UTC"
        return {"pid": os.getpid(), "since": since, "processes": [child.report() for child in self.children]}

    def is_up(self) -> bool:
        """Whether every process is well."""
        return bool(self.children) and all(child.state is State.UP for child in self.children)

    def stop(self, grace_s: float) -> None:
        """Ask every process to end, give them their time, and then leave nothing of them."""
        deadline = time.monotonic() + grace_s
        try:
            for child in self.children:
                child.end(signal.SIGTERM)
            for child in self.children:
                child.wait(deadline - time.monotonic())
        finally:
            kill_marked(self._mark)
            self.report_path.unlink(missing_ok=True)


@contextmanager
def supervise(
    processes: Sequence[Process],
    *,
    home: Path,
    grace_s: float = GRACE_S,
    prepare: Callable[[], None] = lambda: None,
) -> Iterator[Supervisor]:
    """Hold the home alone, and leave it with nothing running.

    `up.lock` in the home is held with flock, so the death of a supervisor frees it. `up.json` says who runs there and
    how each process is. Every child's standard input is one pipe that closes when the supervisor dies, in whatever way:
    the guard reads it and ends the others. Raises AlreadyRunning and PortTaken before anything starts; then `prepare`
    may change what lies in the home.
    """
    home = home.resolve()
    mark = f"{home}|{os.getpid()}.{time.time_ns()}|"
    guard = Process(name="guard", command=[sys.executable, "-m", "orchestration.process_tree", mark])
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with lock(home), pipe() as life:
        kill_marked(f"{home}|")  # what a supervisor that was killed together with its guard left here
        refuse_taken_ports(processes)
        prepare()
        supervisor = Supervisor([guard, *processes], home=home, mark=mark, life=life)
        try:
            yield supervisor
        finally:
            supervisor.stop(grace_s)


@contextmanager
def pipe() -> Iterator[int]:
    """The end for reading of a pipe whose other end nobody else holds."""
    life, pulse = os.pipe()
    try:
        yield life
    finally:
        os.close(life)
        os.close(pulse)


def run(
    processes: Sequence[Process], *, home: Path, console: Console, prepare: Callable[[], None] = lambda: None
) -> None:
    """Keep the processes up and show them until Ctrl-C, SIGTERM or the end of the terminal; a second Ctrl-C hurries."""
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        if ending.is_set():
            raise KeyboardInterrupt
        ending.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    live = Live(console=console, auto_refresh=False)
    with supervise(processes, home=home, prepare=prepare) as supervisor, live:
        while not ending.wait(TICK_S):
            if supervisor.tick():
                show(supervisor.children, live)
        live.console.print("stopping")


@contextmanager
def in_background(processes: Sequence[Process], *, home: Path, grace_s: float = GRACE_S) -> Iterator[Supervisor]:
    """Keep the processes up, unseen, while the block inside does something else."""
    ending = threading.Event()

    def keep_up() -> None:
        while not ending.wait(TICK_S):
            supervisor.tick()

    with supervise(processes, home=home, grace_s=grace_s) as supervisor:
        keeper = threading.Thread(target=keep_up, name="supervisor", daemon=True)
        keeper.start()
        try:
            yield supervisor
        finally:
            ending.set()
            keeper.join()


def show(children: Sequence[Child], live: Live) -> None:
    """Draw the table anew in a terminal, or write it once more into a file."""
    table = Table("process", "state", "restarts", "link", "note", box=None, pad_edge=False)
    for child in children:
        style = "green" if child.state is State.UP else "yellow"
        table.add_row(
            child.process.name,
            f"[{style}]{child.state}[/]",
            str(child.num_restarts),
            child.process.link,
            child.note,
        )
    if live.console.is_terminal:
        live.update(table, refresh=True)
    else:
        live.console.print(table)


def lock(home: Path) -> IO[str]:
    """Hold the home until the returned file is closed or its process dies."""
    file = (home / "up.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise AlreadyRunning(
            f"{home} is held by {holder(home)}; end that one first, or choose another MEWS_HOME"
        ) from error
    return file


def holder(home: Path) -> str:
    """Who runs there, in words."""
    try:
        report = json.loads((home / "up.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # it starts or stops at this moment
        return "another `mews up`"
    return f"`mews up`, process {report['pid']}, since {report['since']}"


def refuse_taken_ports(processes: Sequence[Process]) -> None:
    """Raise PortTaken, naming every port that is in use and the flag that moves it."""
    taken = [process for process in processes if process.port and is_taken(process.port)]
    if taken:
        lines = [f"port {p.port} for {p.name} is taken; choose another with --{p.name}-port" for p in taken]
        raise PortTaken("\n".join(lines))


def is_taken(port: int) -> bool:
    """Whether another process listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that is only closing is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def write_whole(path: Path, text: str) -> None:
    """Replace the file in one step, so that a reader never sees a half."""
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
