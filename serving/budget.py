"""How many actions a policy or a hotfix still allows today: a detector that goes wild is stopped by arithmetic.

One file per limit and UTC day holds one number that every worker of this home maps. Reading costs no system call;
taking is exact among processes, because it happens under the file's lock, and it outlives a restart. Services on
several machines count together where they share the folder, and each for itself where they do not.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from serving.decide import Left, Limit
from serving.decision_log import needs_room

_COUNT = struct.Struct("<q")


class Budget:
    """The actions harder than `log` that were done under each limit on the day of an event; each needs room in all."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._day = date.min
        self._tallies: dict[str, _Tally] = {}

    def left(self, limits: Sequence[Limit], at_us: int) -> Left:
        """What remains of these on the day of this moment."""
        return _least(Left(limit.most - self._tally(limit, at_us).count, limit) for limit in limits)

    def take(self, limits: Sequence[Limit], at_us: int) -> Left:
        """Count one action, if one remains in each; what remained before. 0 or less: it must not be done."""
        before = [Left(limit.most - self._tally(limit, at_us).take(limit.most), limit) for limit in limits]
        least = _least(before)
        if least.actions <= 0:
            self.give_back([limit for actions, limit in before if actions > 0], at_us)
        return least

    def give_back(self, limits: Sequence[Limit], at_us: int) -> None:
        """An action that was taken at this moment was not done."""
        for limit in limits:
            self._tally(limit, at_us).give_back()

    def close(self) -> None:
        """Let go of the files."""
        for tally in self._tallies.values():
            tally.close()
        self._tallies = {}

    def _tally(self, limit: Limit, at_us: int) -> "_Tally":
        day = datetime.fromtimestamp(at_us // 1_000_000, UTC).date()
        if day != self._day:
            self.close()
            self._day = day
        if limit.name not in self._tallies:
            self._tallies[limit.name] = _Tally(self._folder / f"{limit.name}-{day.isoformat()}")
        return self._tallies[limit.name]


def _least(all_left: Iterable[Left]) -> Left:
    return min(all_left, key=lambda left: left.actions)


class _Tally:
    """One number in a file; raises LogFull where there is no room for it, since then no action could be counted."""

    def __init__(self, path: Path) -> None:
        with needs_room("today's actions cannot be counted"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(self._fd, 0, _COUNT.size)  # to write into a hole of it, on a full disk, is SIGBUS
                self._memory = mmap.mmap(self._fd, _COUNT.size)
            except OSError:
                os.close(self._fd)
                raise

    @property
    def count(self) -> int:
        return _COUNT.unpack_from(self._memory)[0]

    def take(self, most: int) -> int:
        """Add one unless `most` is reached; the count before."""
        with self._locked():
            before = self.count
            if before < most:
                _COUNT.pack_into(self._memory, 0, before + 1)
            return before

    def give_back(self) -> None:
        with self._locked():
            _COUNT.pack_into(self._memory, 0, max(0, self.count - 1))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        self._memory.close()
        os.close(self._fd)
