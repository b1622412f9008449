"""Where decisions are kept: acknowledged means on disk, requests share an fsync, each process writes its own file."""

import asyncio
import errno
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from serving.record import Record, decode
from serving.segments import Segment, begun_us, frames, is_asked_to_seal, recover

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DAY_US = 86_400_000_000
_SLACK_US = 120_000_000  # by how far a decision's clock may differ from that of its segment
_SIBLINGS = 8  # requests still to come from which on a write waits for some of them
_GATHER_S = 0.003  # and for how long, at most


class LogFull(Exception):
    """The disk has no room for another decision, so none may be answered."""


class DecisionLog:
    """Append-only segments in a folder: `*.open` belongs to a process, `*.sealed` is complete and can be compacted.

    Opening the folder seals what dead processes left, without their torn tails. A batch is written and synced in a
    thread while the next one gathers. A sync costs as much for one decision as for many, so a write waits a moment
    where many requests are `coming`: until as many wait for it as are still to come, or for 3 ms.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 64 << 20, max_age_s: float = 600.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recover(folder)
        self._folder, self._max_bytes, self._max_age_s = folder, max_bytes, max_age_s
        self._segment = Segment(folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="decision-log")
        self._waiting: list[tuple[Sequence[bytes], asyncio.Future[None]]] = []
        self._num_coming = 0
        self._is_writing = False
        self._due: asyncio.TimerHandle | None = None  # when a write waits for nobody any more
        self._is_suspect = False

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While a request is on its way to `append`."""
        self._num_coming += 1
        try:
            yield
        finally:
            self._num_coming -= 1

    async def append(self, records: Sequence[bytes]) -> None:
        """Return once the records are on disk; raises LogFull when there is no room for them."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((records, future))
        if not self._is_writing:
            loop.call_soon(self._consider, loop)  # lets the rest of this loop tick join
        try:
            await future  # its own: a client that leaves takes no neighbour along
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LogFull(f"the decision log cannot grow: {error.strerror}") from error
            raise

    def _consider(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write what waits, or wait for some of those that are coming."""
        if self._is_writing or not self._waiting:
            return
        if self._num_coming < _SIBLINGS or len(self._waiting) >= self._num_coming:
            self._start(loop)
        elif self._due is None:
            self._due = loop.call_later(_GATHER_S, self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due:
            self._due.cancel()
        self._due, self._is_writing = None, True
        batch, self._waiting = self._waiting, []
        job = loop.run_in_executor(self._writer, self._write, [r for records, _ in batch for r in records])
        job.add_done_callback(lambda done: self._finish(loop, [future for _, future in batch], done=done))

    def _finish(
        self, loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[None]], *, done: asyncio.Future[None]
    ) -> None:
        error = done.exception()
        for future in futures:
            if future.done():
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)
        self._is_writing = False
        self._consider(loop)

    def _write(self, records: list[bytes]) -> None:
        self._rotate_if_due()
        try:
            self._segment.write(records)
        except OSError as error:
            # After a failed sync the kernel may forget what it failed on; after a full disk it does not.
            self._is_suspect = error.errno not in _NO_ROOM
            raise

    def _rotate_if_due(self) -> None:
        age_s = time.monotonic() - self._segment.created
        is_of_today = begun_us(self._segment.path) // _DAY_US == time.time_ns() // 1000 // _DAY_US
        if self._is_suspect or self._segment.size >= self._max_bytes or age_s >= self._max_age_s or not is_of_today:
            self._rotate()

    def _rotate(self) -> None:
        fresh = Segment(self._folder)
        self._segment.seal()
        self._segment, self._is_suspect = fresh, False

    def tick(self) -> None:
        """Seal a segment that is old enough, or that somebody waits for; call it now and then, from any thread."""
        self._writer.submit(self._tick).result()

    def _tick(self) -> None:
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
        self._writer.shutdown(wait=True)
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
