"""How many requests may be under way: as many as are answered in time, found by trying.

What is admitted beyond that only waits, takes memory and is late; what is refused at once costs little and may come
again. The limit grows while answers are in time and is cut when one is late, as TCP does it (RFC 5681).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

_CUT, _GROWTH = 0.8, 4.0


@dataclass
class Room:
    """Places for requests; whoever `enter`s must `leave`."""

    most: int = 512
    least: int = 8
    in_time_s: float = 0.5
    limit: float = 128.0
    clock: Callable[[], float] = time.monotonic
    num_inside: int = 0
    num_turned_away: int = 0  # before anything of them was read
    _last_cut: float = float("-inf")

    def enter(self) -> float | None:
        """Take a place; the moment to hand back when leaving, or none when there is no place."""
        if self.num_inside >= self.limit:
            return None
        self.num_inside += 1
        return self.clock()

    def leave(self, entered: float) -> None:
        """Give the place back, and learn from how long it took; lateness comes in groups and is answered by one cut."""
        now, was_full = self.clock(), self.num_inside >= self.limit / 2
        self.num_inside -= 1
        if now - entered > self.in_time_s:
            if now - self._last_cut > self.in_time_s:
                self.limit, self._last_cut = max(self.least, self.limit * _CUT), now
        elif was_full:
            self.limit = min(self.most, self.limit + _GROWTH / self.limit)
