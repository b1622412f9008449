"""Finds and ends every process that one supervisor started, however deep and in whatever session it now lives.

A process group is not enough: BentoML's workers leave theirs, and MLflow's outlive their parent. What every descendant
keeps is its environment, so the supervisor puts a mark there and looks for it.

`python -m orchestration.process_tree MARK` is the guard: it sleeps until its standard input closes, which happens when
the supervisor dies in any way, and then ends whatever carries the mark.
"""

import os
import sys
import time
from contextlib import suppress

import psutil

MARK = "MEWS_SUPERVISED"


def marked(prefix: str) -> list[psutil.Process]:
    """The living processes whose mark starts with `prefix`, without the caller; those of other users are not seen."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK, "").startswith(prefix) and process.pid != os.getpid():
                found.append(process)
    return found


def kill_marked(prefix: str) -> int:
    """Send SIGKILL until nothing with this mark is left, and return how many processes that ended."""
    num_killed = 0
    while found := marked(prefix):
        for process in found:
            with suppress(psutil.NoSuchProcess):  # psutil compares start times, so a reused number is never hit
                process.kill()
        num_killed += len(found)
        psutil.wait_procs(found, timeout=1)
    return num_killed


def guard(prefix: str) -> None:
    """Wait for the supervisor's end, then leave nothing of it behind."""
    sys.stdin.read()
    kill_marked(prefix)
    time.sleep(0.5)  # a process caught between fork and exec does not carry the mark yet
    kill_marked(prefix)


if __name__ == "__main__":
    guard(sys.argv[1])
