import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving.challenges import Challenge
from serving.metrics import Metrics
from serving.shadow import Shadow, Shadows

CHALLENGE = Challenge("content", "a" * 64, "b" * 64, 0.0, "tom", 1, 1)
MEMORY = 256 << 20
ECHO = """
import socket, sys
out = open(sys.argv[1], "ab", buffering=0)
with socket.socket(fileno=int(sys.argv[2])) as events:
    while data := events.recv(1 << 20):
        out.write(data + b"\\n--\\n")
"""
LEAK = """
import sys
kept = []
try:
    while True:
        kept.append(b"x" * (1 << 20))
except MemoryError:
    open(sys.argv[1], "w").write(str(len(kept)))
"""


def shadow(code: str, *arguments: str) -> Shadow:
    return Shadow(CHALLENGE, [sys.executable, "-c", code, *arguments], max_memory=MEMORY)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def echo(out: Path) -> Iterator[Shadow]:
    started = shadow(ECHO, str(out))
    started.tend()
    yield started
    started.close()


def wait_for(path: Path, num_bytes: int = 1) -> bytes:
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < num_bytes) and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.read_bytes()


def test_what_was_offered_goes_together_when_the_shadow_is_tended(echo: Shadow, out: Path) -> None:
    for number in range(100):
        echo.offer(b"%d" % number)
    before = out.exists()
    echo.tend()
    echo.offer(b"later")
    echo.tend()

    found = wait_for(out, 300)

    assert not before
    assert [group.split() for group in found.split(b"\n--\n")[:-1]] == [[b"%d" % n for n in range(100)], [b"later"]]
    assert echo.num_dropped == 0


def test_a_shadow_that_takes_nothing_costs_what_it_did_not_get_and_no_time(echo: Shadow, out: Path) -> None:
    echo.offer(b"x")
    echo.tend()
    wait_for(out)
    assert echo._process is not None
    psutil.Process(echo._process.pid).suspend()
    message, begun = b"x" * 100_000, time.monotonic()

    for _ in range(1000):
        echo.offer(message)
    echo.tend()

    assert time.monotonic() - begun < 1.0
    assert 900 <= echo.num_dropped < 1000


def test_without_a_process_what_is_offered_is_dropped() -> None:
    alone = shadow("")

    alone.offer(b"x")

    assert alone.num_dropped == 1


def test_a_shadow_may_take_no_more_memory_than_was_meant_for_it(out: Path) -> None:
    leaking = shadow(LEAK, str(out))
    leaking.tend()

    megabytes = int(wait_for(out))
    leaking.close()

    assert MEMORY / 2 < megabytes << 20 < MEMORY


def test_a_shadow_runs_only_when_nobody_else_wants_the_processor(echo: Shadow) -> None:
    assert echo._process is not None

    assert os.sched_getscheduler(echo._process.pid) == os.SCHED_IDLE


def test_a_shadow_that_ended_is_started_again_after_its_wait() -> None:
    brief = Shadow(CHALLENGE, [sys.executable, "-c", ""], max_memory=MEMORY, _wait_s=0.1)
    deadline = time.monotonic() + 60

    while brief.num_starts < 3 and time.monotonic() < deadline:
        brief.tend()
        time.sleep(0.02)
    brief.close()

    assert brief.num_starts == 3


def test_one_shadow_that_cannot_be_started_keeps_no_other_from_its_events(echo: Shadow, out: Path) -> None:
    shadows = Shadows(out.parent, {}, Metrics())
    shadows._of = {"broken": (Shadow(CHALLENGE, ["/nowhere"], max_memory=MEMORY),), "content": (echo,)}

    shadows.offer("content", "r1", "me", [{"text": "hello"}])
    shadows.tend()

    assert b"hello" in wait_for(out)
