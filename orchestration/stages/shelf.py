"""Folders that stages leave for the next: one per run, and a pointer to the newest that is whole."""

import os
import uuid
from pathlib import Path

_POINTER = "LATEST"


class NothingThere(LookupError):
    """No run has finished this stage yet."""


def new(shelf: Path, run_id: str) -> Path:
    """The folder of a run; a run that is tried again finds what it left."""
    folder = shelf / run_id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish(folder: Path) -> None:
    """Make a folder the one that `latest` answers, in one rename."""
    partial = folder.parent / f".{_POINTER}.{uuid.uuid4().hex}"
    partial.write_text(folder.name, encoding="utf-8")
    os.replace(partial, folder.parent / _POINTER)  # noqa: PTH105


def latest(shelf: Path) -> Path:
    """The newest whole folder; raises NothingThere."""
    pointer = shelf / _POINTER
    if not pointer.exists():
        raise NothingThere(f"{shelf.name} has no finished {shelf.parent.name}; materialize it first")
    return shelf / pointer.read_text(encoding="utf-8")


def of_run(shelf: Path, run_id: str) -> Path:
    """What this very run left, else the newest whole folder; raises NothingThere."""
    folder = shelf / run_id
    return folder if folder.exists() else latest(shelf)
