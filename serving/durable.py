"""Writes that are on disk when they return."""

import os
import uuid
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make names that were created, renamed or removed in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path, *, root: Path) -> None:
    """Make a file that somebody wrote survive a power cut, with the names of it and of its folders below `root`."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    for folder in path.parents:
        sync_folder(folder)
        if folder == root:
            return


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file whole: a reader sees the old content or the new, and after the return only the new."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)  # noqa: PTH105  # one rename, atomic on a POSIX file system
    sync_folder(path.parent)
