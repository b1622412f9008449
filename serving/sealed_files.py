"""The files of a bundle: plain files of formats that run no code, read without following a link."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypedDict

_CHUNK = 1 << 18  # stays in the second-level cache between the read and the hash
_TEXT = re.compile(rb"[^\x00-\x08\x80-\xc1\xf5-\xff]|\Z")
_JSON = re.compile(rb"\s*[\[{]")

# The only formats that are sealed, and how their files begin. None of them runs code when it is loaded; a pickle under
# any of these names does not begin like this.
_OPENINGS = {
    ".json": _JSON,
    ".jsonl": _JSON,
    ".safetensors": re.compile(rb".{8}\{", re.DOTALL),
    ".onnx": re.compile(rb"\x08"),
    ".png": re.compile(rb"\x89PNG"),
    ".md": _TEXT,
    ".html": _TEXT,
    ".txt": _TEXT,
}


class BundleAltered(Exception):
    """A bundle is not what was sealed, or holds what no bundle may hold; the message names the file."""


class FileFact(TypedDict):
    """What a manifest says about one file."""

    sha256: str
    size: int


Inode = tuple[int, int, int, int, int]  # device, inode, size, mtime_ns, ctime_ns: the last cannot be set back


def walk(folder: Path) -> dict[str, Inode]:
    """Every file below a folder by its relative name; raises BundleAltered for a link or a special file."""
    if folder.is_symlink() or not folder.is_dir():
        raise BundleAltered(f"{folder.name} is not a folder")
    return dict(_walk(folder, PurePosixPath()))


def _walk(folder: Path, below: PurePosixPath) -> Iterator[tuple[str, Inode]]:
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        name, state = below / entry.name, entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode):
            yield from _walk(folder / entry.name, name)
        elif stat.S_ISREG(state.st_mode):
            yield str(name), (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        else:
            raise BundleAltered(f"{name} is a link or a special file")


def check_name(name: str) -> None:
    """Raise BundleAltered for a name that leaves the folder or whose format is not one of those that are sealed."""
    path = PurePosixPath(name)
    if path.is_absolute() or str(path) != name or ".." in path.parts or "\\" in name or "\0" in name:
        raise BundleAltered(f"{name!r} does not stay inside the bundle")
    if path.suffix not in _OPENINGS:
        raise BundleAltered(f"{name} is of no format that is sealed ({', '.join(_OPENINGS)}): it could run code")


def open_file(folder: Path, name: str) -> BinaryIO:
    """Open a plain file of a bundle; raises BundleAltered where it is missing or a link."""
    try:
        return os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0)
    except OSError as error:
        raise BundleAltered(f"{name} cannot be read: {error.strerror}") from error


def read_file(folder: Path, name: str) -> FileFact:
    """Hash a file of a bundle."""
    with open_file(folder, name) as source:
        return _hash(source, name, None)


def copy_file(folder: Path, name: str, target: Path) -> FileFact:
    """Copy a file, read-only and synced, and say what was copied: the hash is of the bytes that were written."""
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    with open_file(folder, name) as source, (target / name).open("xb", buffering=0) as copy:
        fact = _hash(source, name, copy)
        os.fchmod(copy.fileno(), 0o444)
        os.fsync(copy.fileno())
    return fact


def _hash(source: BinaryIO, name: str, copy: BinaryIO | None) -> FileFact:
    hasher, size, chunk = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK))
    while num_bytes := source.readinto(chunk):  # type: ignore[attr-defined]
        if size == 0:
            _check_opening(name, bytes(chunk[: min(num_bytes, 64)]))
        hasher.update(chunk[:num_bytes])
        if copy is not None:
            copy.write(chunk[:num_bytes])
        size += num_bytes
    return {"sha256": hasher.hexdigest(), "size": size}


def _check_opening(name: str, opening: bytes) -> None:
    suffix = PurePosixPath(name).suffix
    if not _OPENINGS[suffix].match(opening):
        raise BundleAltered(f"{name} is not a {suffix} file: it could run code")
