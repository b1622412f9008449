"""A fit ends with whoever started it, and one folder is trained by one launcher: two would write the same files."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENDS_WITH_INPUT = "MEWS_ENDS_WITH_INPUT"


def end_with_launcher() -> bool:
    """Where a launcher started this process, let its group be killed once that has ended; whether one did.

    Our standard input is then a pipe that nobody writes to, and ends with the launcher, also where that is killed.
    """
    has_launcher = bool(os.environ.get(ENDS_WITH_INPUT))
    if has_launcher:
        threading.Thread(target=_wait, daemon=True).start()
    return has_launcher


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
