"""The supervisor with real small children, killed in every way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestration.child import Process, State, is_answering
from orchestration.process_tree import kill_marked, marked
from orchestration.supervisor import AlreadyRunning, PortTaken, supervise

SERVER = """
import http.server, sys
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Quiet).serve_forever()
"""
# Leaves a child in a session of its own that ignores SIGTERM, as a BentoML worker behind a dead master.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, __file__], start_new_session=True)
time.sleep(600)
"""
UP = """
import sys
from pathlib import Path
from rich.console import Console
from orchestration.child import Process
from orchestration.supervisor import run
home, port = Path(sys.argv[1]), int(sys.argv[2])
run([
    Process(name="web", command=[sys.executable, home / "server.py", str(port), "200"], port=port, health_path="/"),
    Process(name="stubborn", command=[sys.executable, home / "stubborn.py", "parent"]),
], home=home, console=Console())
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    yield tmp_path
    kill_marked(f"{tmp_path.resolve()}|")


@pytest.fixture
def web(home: Path, port: int) -> Process:
    return Process(
        name="web", command=[sys.executable, str(home / "server.py"), str(port), "200"], port=port, health_path="/"
    )


def until(is_true: Callable[[], bool], *, timeout_s: float = 20, tick: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        tick()
        time.sleep(0.02)


def up(home: Path, port: int) -> subprocess.Popen[bytes]:
    (home / "up.py").write_text(UP)
    with (home / "up.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(home / "up.py"), str(home), str(port)],
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def reported(home: Path) -> dict[str, dict[str, object]]:
    path = home / "up.json"
    return {p["name"]: p for p in json.loads(path.read_text())["processes"]} if path.exists() else {}


def is_all_up(home: Path) -> bool:
    report = reported(home)
    return bool(report) and all(process["state"] == State.UP for process in report.values())


def test_a_killed_child_comes_back_and_the_restart_is_counted(home: Path, web: Process) -> None:
    with supervise([web], home=home) as supervisor:
        until(supervisor.is_up, tick=supervisor.tick)
        child = supervisor.children[-1]
        before = child.pid

        os.kill(before or 0, signal.SIGKILL)
        until(lambda: child.num_restarts == 1 and supervisor.is_up(), tick=supervisor.tick)

        assert child.pid != before
        assert is_answering(web)


def test_what_a_dead_child_left_in_another_session_is_ended_before_it_starts_again(home: Path) -> None:
    stubborn = Process(name="stubborn", command=[sys.executable, str(home / "stubborn.py"), "parent"])
    with supervise([stubborn], home=home, grace_s=0.5) as supervisor:
        until(lambda: len(marked(f"{home.resolve()}|")) == 3, tick=supervisor.tick)  # the guard, it, and its child
        grandchild = next(p for p in marked(f"{home.resolve()}|") if p.cmdline()[-1].endswith("stubborn.py"))

        os.kill(supervisor.children[-1].pid or 0, signal.SIGKILL)
        until(lambda: supervisor.children[-1].num_restarts == 1, tick=supervisor.tick)

        assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_child_that_keeps_failing_is_tried_less_and_less_often(home: Path) -> None:
    broken = Process(name="broken", command=[sys.executable, "-c", "raise SystemExit(3)"])
    with supervise([broken], home=home) as supervisor:
        child = supervisor.children[-1]
        until(lambda: child.num_restarts == 2, tick=supervisor.tick)
        delays = []
        for num_restarts in (3, 4):
            began = time.monotonic()
            until(lambda goal=num_restarts: child.num_restarts == goal, tick=supervisor.tick)
            delays.append(time.monotonic() - began)

        assert delays[1] > 1.5 * delays[0]
        assert child.note == "exit 3, see broken.log"


def test_a_child_that_answers_with_server_errors_is_not_up(home: Path, port: int) -> None:
    sick = Process(
        name="sick", command=[sys.executable, str(home / "server.py"), str(port), "503"], port=port, health_path="/"
    )
    with supervise([sick], home=home) as supervisor:
        until(lambda: not is_free(port), tick=supervisor.tick)
        supervisor.tick()

        assert supervisor.children[-1].state is State.STARTING


def test_a_child_that_is_silent_for_too_long_is_restarted(home: Path, web: Process) -> None:
    with supervise([replace(web, patience_s=1)], home=home) as supervisor:
        until(supervisor.is_up, tick=supervisor.tick)
        child = supervisor.children[-1]

        os.kill(child.pid or 0, signal.SIGSTOP)
        until(lambda: child.num_restarts == 1 and supervisor.is_up(), tick=supervisor.tick)

        assert is_answering(web)


def test_a_taken_port_is_refused_with_its_number_and_its_flag(home: Path, web: Process, port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()

        with (
            pytest.raises(PortTaken, match=f"port {port} for web is taken; choose another with --web-port"),
            supervise([web], home=home),
        ):
            pass


def test_a_second_supervisor_says_who_runs(home: Path, web: Process) -> None:
    with supervise([web], home=home) as first:
        first.tick()

        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}, since"), supervise([web], home=home):
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process_even_those_that_ignore_it(home: Path, port: int, number: signal.Signals) -> None:
    supervisor = up(home, port)
    until(lambda: is_all_up(home))

    supervisor.send_signal(number)
    time.sleep(0.5)
    supervisor.send_signal(number)  # the second one does not wait for the stubborn

    supervisor.wait(10)
    assert not marked(f"{home.resolve()}|")
    assert not (home / "up.json").exists()


def test_a_killed_supervisor_leaves_nothing_and_the_next_one_starts(home: Path, port: int) -> None:
    supervisor = up(home, port)
    until(lambda: is_all_up(home))

    supervisor.kill()
    supervisor.wait()
    until(lambda: not marked(f"{home.resolve()}|"))

    again = up(home, port)
    until(lambda: is_all_up(home) and reported(home)["web"]["restarts"] == 0)
    again.kill()
    again.wait()


def test_a_supervisor_killed_together_with_its_guard_is_cleaned_up_by_the_next(home: Path, port: int) -> None:
    supervisor = up(home, port)
    until(lambda: is_all_up(home))
    stale = {process.pid for process in marked(f"{home.resolve()}|")}
    os.kill(supervisor.pid, signal.SIGSTOP)  # so that it does not start the guard again
    os.kill(int(str(reported(home)["guard"]["pid"])), signal.SIGKILL)
    supervisor.kill()
    supervisor.wait()

    again = up(home, port)
    until(lambda: is_all_up(home) and json.loads((home / "up.json").read_text())["pid"] == again.pid)

    assert not stale & {process.pid for process in marked(f"{home.resolve()}|")}
    again.kill()
    again.wait()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
