"""The size of a world and its seeded streams of chance: every day and every part draws from a stream of its own."""

import zlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from feature_repo.lake import DAY_US, start_us


@dataclass(frozen=True)
class Scale:
    """What a world is made from; the same values make the same world, and a longer one begins like a shorter one."""

    seed: int = 7
    num_accounts: int = 4_000
    num_days: int = 30
    start: date = date(2026, 1, 1)

    def __post_init__(self) -> None:
        if self.num_accounts < 100:
            raise ValueError(f"num_accounts is {self.num_accounts}; a world needs at least 100")
        if self.num_days < 1:
            raise ValueError(f"num_days is {self.num_days}; a world needs at least 1")

    @property
    def num_merchants(self) -> int:
        """Twenty accounts to a merchant, and at least forty merchants."""
        return max(40, self.num_accounts // 20)

    def stream(self, name: str, *numbers: int) -> np.random.Generator:
        """The chance of one part of the world, which no other part touches."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), *numbers])

    def date_of(self, day: int) -> date:
        """The date of a day number; day 0 is `start`."""
        return self.start + timedelta(days=day)

    def day_of(self, when: date) -> int:
        """The day number of a date."""
        if when < self.start:
            raise ValueError(f"{when} is before the world's first day {self.start}")
        return (when - self.start).days

    def start_us(self, day: int) -> int:
        """The first microsecond of a day number."""
        return start_us(self.start) + day * DAY_US
