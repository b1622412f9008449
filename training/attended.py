"""A fit ends with whoever started it, and one folder is trained by one launcher: two would write the same files."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENDS_WITH_INPUT = "MEWS_ENDS_WITH_INPUT"


def end_with_input() -> None:
    """From now on, where the environment says so, this process group is killed once its standard input ends.

    The input is a pipe that nobody writes to. It ends with the process at its other end, also where that is killed.
    """
    if os.environ.get(ENDS_WITH_INPUT):
        threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    while os.read(0, 1):  # the descriptor itself: a forked worker would wait for a lock of `sys.stdin` for ever
        pass
    os.killpg(0, signal.SIGKILL)


@contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """Hold a run folder until the block or the process ends; raises SystemExit where somebody else holds it."""
    with (run_dir / "launch.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{run_dir} is being trained by another process; wait for it, or end it") from None
        yield
