"""What every test shares."""

import atexit
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser import Browser


def pytest_unconfigure() -> None:
    """DuckDB 2.0 reports its own bindings as leaked when an interpreter ends, which buries the last line of pytest."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator["Browser"]:
    """A page of a headless Chromium."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    from tests.browser import Browser

    made = Browser(tmp_path / "chromium")
    yield made
    made.close()
