"""Where decisions are kept: acknowledged means on disk, requests share a sync, each process writes its own file."""

import errno
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving.record import Record, decode
from serving.segments import Segment, begun_us, frames, is_asked_to_seal, recover

_log = logging.getLogger(__name__)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DAY_US = 86_400_000_000
_SLACK_US = 120_000_000  # by how far a decision's clock may differ from that of its segment


class LogFull(Exception):
    """The disk has no room for another decision, so none may be answered."""


@contextmanager
def needs_room(what: str) -> Iterator[None]:
    """Raise LogFull, saying what cannot be done, where a full disk is the reason."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise LogFull(f"{what}: {error.strerror}") from error
        raise


class DecisionLog:
    """Append-only segments in a folder: `*.open` belongs to a process, `*.sealed` is complete and can be compacted.

    Opening the folder seals what dead processes left, without their torn tails. Any thread may write; a sync costs as
    much for one decision as for many, so whoever decides many at once writes them at once.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 64 << 20, max_age_s: float = 600.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recover(folder)
        self._folder, self._max_bytes, self._max_age_s = folder, max_bytes, max_age_s
        self._segment = Segment(folder)
        self._lock = threading.Lock()
        self._is_suspect = False

    def write(self, records: Sequence[bytes]) -> None:
        """Return once the records are on disk, all of them or none; raises LogFull when there is no room for them."""
        with self._lock:
            try:
                with needs_room("the decision log cannot grow"):
                    self._rotate_if_due()
                    self._segment.write(records)
            except OSError:
                self._is_suspect = True  # after a failed sync the kernel may forget what it failed on
                raise

    def _rotate_if_due(self) -> None:
        age_s = time.monotonic() - self._segment.created
        is_of_today = begun_us(self._segment.path) // _DAY_US == time.time_ns() // 1000 // _DAY_US
        if self._is_suspect or self._segment.size >= self._max_bytes or age_s >= self._max_age_s or not is_of_today:
            self._rotate()

    def _rotate(self) -> None:
        old, self._segment, self._is_suspect = self._segment, Segment(self._folder), False
        try:
            old.seal()
        except OSError as error:  # what it holds was on disk before; whoever opens or compacts the folder seals it
            _log.error("a segment of the log cannot be sealed: %s", type(error).__name__)

    def tick(self) -> None:
        """Seal a segment that is old enough, or that somebody waits for; call it now and then."""
        with self._lock:
            if is_asked_to_seal(self._segment.path):
                self._rotate()
            else:
                self._rotate_if_due()

    def find(self, decision_id: str, at_us: int) -> bytes | None:
        """The record of a decision made at about `at_us`, looked for in the newest segments first."""
        needle = b'"decision_id":"%s"' % decision_id.encode()  # cannot occur inside a JSON string
        for path in sorted(self._folder.glob("*-*.*"), reverse=True):
            if begun_us(path) > at_us + _SLACK_US:
                continue
            for record in read_segment(path, containing=needle):
                return record
        return None

    def close(self) -> None:
        """Finish what is being written and seal the segment."""
        with self._lock:
            self._segment.seal()


def read_segment(path: Path, *, containing: bytes = b"") -> Iterator[bytes]:
    """The whole records of a segment that contain some bytes, in the order in which they were written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        sealed = path.with_suffix(".sealed")  # it was sealed between listing and reading
        data = sealed.read_bytes() if sealed.exists() else b""
    if containing in data:
        yield from (payload for _, payload in frames(data) if containing in payload)


def logged(folder: Path, *, since_us: int) -> Iterator[Record]:
    """Every decision from a moment on that is still in a folder's segments, oldest segment first."""
    for path in sorted(folder.glob("*-*.*")):
        for payload in read_segment(path):
            if (record := decode(payload)).at_us >= since_us:
                yield record
