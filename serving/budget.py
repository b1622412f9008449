"""How many actions a policy still allows today: a detector that goes wild is stopped by arithmetic.

One file per policy and UTC day holds one number that every worker of this home maps. Reading costs no system call;
taking is exact among processes, because it happens under the file's lock, and it outlives a restart. Services on
several machines count together where they share the folder, and each for itself where they do not.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from serving.decision_log import needs_room
from training.policy import Policy

_COUNT = struct.Struct("<q")


class Budget:
    """The actions harder than `log` that were done under each policy on the day of an event."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._day = date.min
        self._tallies: dict[str, _Tally] = {}

    def left(self, policy: Policy, at_us: int) -> int:
        """What remains of the policy's actions on the day of this moment."""
        return policy.max_actions_per_day - self._tally(policy, at_us).count

    def take(self, policy: Policy, at_us: int) -> int:
        """Count one action, if one remains; what remained before. 0 or less: it must not be done."""
        return policy.max_actions_per_day - self._tally(policy, at_us).take(policy.max_actions_per_day)

    def give_back(self, policy: Policy, at_us: int) -> None:
        """An action that was taken at this moment was not done."""
        self._tally(policy, at_us).give_back()

    def close(self) -> None:
        """Let go of the files."""
        for tally in self._tallies.values():
            tally.close()
        self._tallies = {}

    def _tally(self, policy: Policy, at_us: int) -> "_Tally":
        day = datetime.fromtimestamp(at_us // 1_000_000, UTC).date()
        if day != self._day:
            self.close()
            self._day = day
        if policy.name not in self._tallies:
            self._tallies[policy.name] = _Tally(self._folder / f"{policy.name}-{day.isoformat()}")
        return self._tallies[policy.name]


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
