"""What every test shares."""

import atexit
import os


def pytest_unconfigure() -> None:
    """DuckDB 2.0 reports its own bindings as leaked when an interpreter ends, which buries the last line of pytest."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
