"""One file of the decision log: framed records, written whole or cut off, owned by one living process."""

import fcntl
import os
import re
import struct
import sys
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

from serving.durable import sync_folder

MAGIC = b"mews decision log 1\n"
_HEAD = struct.Struct("<II")  # length of the payload, crc32 of the payload
MAX_PAYLOAD = 16 << 20
_RESERVED = 1 << 20  # bytes that a segment grows by at a time
_STALE_S = 3600
_ASKED = ".seal"
_BEGINS = re.compile(rb"(?s)(?=.{3}\0.{4}\{)")  # where a record may: length, checksum, JSON


def frame(payload: bytes) -> bytes:
    """A record as it lies in a segment: length, checksum, payload."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each whole record with the offset behind it, up to the first that is torn or altered, or to the zeros ahead."""
    if not data.startswith(MAGIC):
        return
    at = len(MAGIC)
    while (payload := _payload(data, at)) is not None:
        at += _HEAD.size + len(payload)
        yield at, payload


def _payload(data: bytes, at: int) -> bytes | None:
    """What a whole record holds that begins at an offset; None where none does."""
    length, crc = _head(data, at)
    payload = data[at + _HEAD.size : at + _HEAD.size + length]
    is_whole = 0 < length <= MAX_PAYLOAD and len(payload) == length and zlib.crc32(payload) == crc
    return payload if is_whole else None


def _head(data: bytes, at: int) -> tuple[int, int]:
    """Length and checksum, of which zeros are taken for what the file does not hold."""
    return _HEAD.unpack(data[at : at + _HEAD.size].ljust(_HEAD.size, b"\0"))


def begun_us(path: Path) -> int:
    """When a segment was begun; what it holds was decided later, and on the same UTC day."""
    return int(path.name.partition("-")[0])


def sealed_segments(folder: Path) -> list[Path]:
    """The segments that no process writes any more, oldest first; each holds decisions that no other one holds."""
    return sorted(folder.glob("*.sealed"))


def waiting(folder: Path) -> dict[date, list[Path]]:
    """The sealed segments by the UTC day on which they were begun."""
    days: dict[date, list[Path]] = defaultdict(list)
    for path in sealed_segments(folder):
        days[datetime.fromtimestamp(begun_us(path) // 1_000_000, UTC).date()].append(path)
    return dict(days)


def ask_to_seal(folder: Path) -> None:
    """Ask whoever writes segments to seal those begun before now; a service does it within a second or two."""
    (folder / _ASKED).touch()


def is_asked_to_seal(path: Path) -> bool:
    """Whether somebody wants to read what a segment holds since it was begun."""
    try:
        return (path.parent / _ASKED).stat().st_mtime_ns // 1000 >= begun_us(path)
    except FileNotFoundError:
        return False


def whole(path: Path) -> list[bytes] | None:
    """Every record of a sealed segment, or None where one of them was altered."""
    data = path.read_bytes()
    found = list(frames(data))
    return [payload for _, payload in found] if found and found[-1][0] == len(data) else None


class Segment:
    """A segment that this process writes; it holds the file's lock, so that nobody mistakes it for an abandoned one.

    Zeros are written ahead: what is put in their place changes neither the file's length nor where it lies, so that it
    is synced without a commit of the file system's journal, which would wait for whatever other processes write.
    """

    def __init__(self, folder: Path, *, begun_us: int | None = None) -> None:
        """Begin one in `folder`; `begun_us` (microseconds, UTC, by default now) says of which day it is."""
        name = f"{begun_us or time.time_ns() // 1000:016d}-{uuid.uuid4().hex[:8]}"
        self.path = folder / f"{name}.open"
        hidden = folder / f".{name}"
        self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._reserved = len(MAGIC)
        try:
            self.size = self._durable_write(MAGIC, at=0)
        except OSError:
            os.close(self._fd)
            hidden.unlink()
            raise
        hidden.rename(self.path)  # locked before it has a name that others look for
        sync_folder(folder)
        self.created = time.monotonic()

    def write(self, payloads: Sequence[bytes]) -> None:
        """Put records on disk, all or none; returns when they would survive a power cut."""
        data = b"".join(map(frame, payloads))
        if self.size + len(data) > self._reserved:
            self._reserve(self.size + len(data) + _RESERVED)
        self.size += self._durable_write(data, at=self.size)

    def _reserve(self, end: int) -> None:
        """Write zeros ahead, if there is room for so many."""
        try:
            self._durable_write(bytes(end - self.size), at=self.size)
            self._reserved = end
        except OSError:
            self._reserved = sys.maxsize  # a record may still find room

    def _durable_write(self, data: bytes, *, at: int) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[os.pwritev(self._fd, [view], at + len(data) - len(view), os.RWF_DSYNC) :]
        except OSError:
            os.ftruncate(self._fd, at)
            self._reserved = at
            raise
        return len(data)

    def seal(self) -> None:
        """Close the segment for good; one without records disappears."""
        finish(self.path, self._fd, end=self.size)


def finish(path: Path, fd: int, *, end: int | None = None) -> None:
    """Cut a locked segment where its records end, give it its final name and let go of it, also where that fails.

    Whoever wrote it knows its end; that of a dead process is looked for.
    """
    with os.fdopen(fd, "r+b") as file:
        if end is None:
            end = _end(file.read())
        if end > len(MAGIC):
            os.ftruncate(fd, end)
            os.fsync(fd)
            path.rename(path.with_suffix(".sealed"))
        else:
            path.unlink()
        sync_folder(path.parent)


def _end(data: bytes) -> int:
    """Where a dead process's records end: before the zeros ahead and what it was writing, which nobody was answered.

    Where anything else follows the last whole record, records were altered. All is kept then, and is not `whole`.
    """
    if not data.startswith(MAGIC):
        return len(data)
    at = max((end for end, _ in frames(data)), default=len(MAGIC))
    return at if _is_torn(data[at:].rstrip(b"\0")) else len(data)


def _is_torn(tail: bytes) -> bool:
    """Whether this may be one write that was cut short: bytes of its first record are missing, and no other is whole.

    What is missing is behind the file's end, or zero as it was before; a record is JSON, which holds no zero.
    """
    length, _ = _head(tail, 0)
    payload = tail[_HEAD.size : _HEAD.size + length]
    is_short = not 0 < length <= len(payload) or b"\0" in payload
    others = (_payload(tail, found.start()) for found in _BEGINS.finditer(tail))
    return length <= MAX_PAYLOAD and is_short and not any(others)


def recover(folder: Path) -> list[Path]:
    """Seal the segments whose process died; those of living processes stay."""
    for hidden in folder.glob(".*-*"):  # its process died before the segment had a name
        with suppress(FileNotFoundError):  # or it has its name by now
            if time.time() - hidden.stat().st_mtime > _STALE_S:
                hidden.unlink()
    recovered = []
    for path in sorted(folder.glob("*.open")):
        try:
            fd = os.open(path, os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:  # another worker was faster
            continue
        except BlockingIOError:
            os.close(fd)
            continue
        if path.exists():
            finish(path, fd)
            recovered.append(path.with_suffix(".sealed"))
        else:
            os.close(fd)
    return recovered
