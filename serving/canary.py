"""A canary: a challenger that answers a fixed share of the accounts, and stops by itself when it does not behave."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist

from serving.challenges import Challenge

_FIRST_LOOK = 100
_FALSE_ALARMS = 0.001  # over all looks, for a canary that behaves like the champion
_MOST_ERRORS = 0.01


@dataclass
class Tally:
    """Decisions of one side, and how many of them did something to somebody."""

    num: int = 0
    num_actions: int = 0


@dataclass
class Canary:
    """Which accounts a challenge answers, and how it did; `stopped` says why it answers nobody any more."""

    challenge: Challenge
    stopped: str = ""
    num_errors: int = 0
    mine: Tally = field(default_factory=Tally)
    champions: Tally = field(default_factory=Tally)
    _num_looks: int = 0

    def answers(self, account_id: str | None) -> bool:
        """Whether an account is this canary's: the same answer in every process, and as long as the challenge lasts."""
        if self.stopped or account_id is None:
            return False
        digest = hashlib.blake2b(account_id.encode(errors="replace"), key=self._salt, digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.challenge.share * 2**64

    def count(self, decisions: Iterable[tuple[bool, bool]]) -> None:
        """Count decisions as (made by the canary, is an action)."""
        for is_mine, is_action in decisions:
            tally = self.mine if is_mine else self.champions
            tally.num += 1
            tally.num_actions += is_action
        self.look()

    def failed(self, num: int) -> None:
        """Count decisions that the champion had to make instead."""
        if not self.stopped:
            self.num_errors += num
            self.look()

    def look(self) -> None:
        """Stop on an alarm. The action rate is looked at when the decisions have doubled, so that looking stays honest.

        The k-th look spends 1/(k(k+1)) of the false alarms that are allowed.
        """
        asked = self.mine.num + self.num_errors
        if self.num_errors > 5 and interval(self.num_errors, asked, confidence=0.99)[0] > _MOST_ERRORS:
            self.stopped = f"{self.num_errors} of {asked} decisions failed"
        if self.mine.num < _FIRST_LOOK * 2**self._num_looks or self.stopped:
            return
        self._num_looks += 1
        confidence = 1 - _FALSE_ALARMS / (self._num_looks * (self._num_looks + 1))
        low, high = interval(self.champions.num_actions, self.champions.num, confidence=confidence)
        mine_low, mine_high = interval(self.mine.num_actions, self.mine.num, confidence=confidence)
        if mine_low > high or mine_high < low:
            rate = self.mine.num_actions / self.mine.num
            self.stopped = f"its action rate {rate:.4f} lies outside the champion's {low:.4f} to {high:.4f}"

    @property
    def _salt(self) -> bytes:
        return self.challenge.release.encode()[:64]


def interval(num: int, of: int, *, confidence: float) -> tuple[float, float]:
    """Bounds of a share (Wilson 1927); of nothing: everything is possible."""
    if not of:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = num / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)
