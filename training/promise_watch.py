"""Is a promise still kept on live events? A test that may be looked at after every verdict and stays honest.

Each wrong answer multiplies an e-value: the likelihood under rates above the limit (all equally believed) over that at
the limit. Under a kept promise it is a supermartingale, so that by Ville's inequality it ever reaches 1 / error with a
probability of at most the error (Robbins 1970; Howard et al., arXiv 1810.08240). Several labels and segments share the
error. Events that were reviewed with unequal probabilities are thinned to the rarest: which stay is drawn from their
ids, so that a later look keeps what an earlier one kept until a rarer one comes, for which fewer stay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaln

from training.policy import Contract, Promise


class Watch(Contract):
    """What live verdicts say about one promise; `num_wrong` of `num_rows` are false alarms or misses."""

    label: str
    segment: str | None
    kind: str
    limit: float
    num_rows: int
    num_wrong: int
    e_value: float
    is_broken: bool

    def in_words(self) -> str:
        """One sentence for people."""
        where = f" in {self.segment}" if self.segment else ""
        about = {
            "benign_fpr": "benign events flagged",
            "precision": "flagged events benign",
            "recall": "violations missed",
        }
        state = "is broken" if self.is_broken else "was not shown to be broken"
        seen = f"{self.num_wrong} of {self.num_rows} {about[self.kind]}"
        return f"{self.label}{where}: {self.kind} {self.limit:g} {state}; live, {seen} (evidence {self.e_value:.3g})"


@dataclass(frozen=True)
class Live:
    """Decided events whose verdict on one label is known, each reviewed with a known probability."""

    event_ids: Sequence[str]
    flagged: NDArray[np.bool_]
    violates: NDArray[np.bool_]
    probabilities: NDArray[np.floating]

    def uniform(self) -> "Live":
        """As if each had been reviewed with the smallest of the probabilities."""
        if not len(self.event_ids):
            return self
        kept = (
            np.array([_draw(event_id) for event_id in self.event_ids]) < self.probabilities.min() / self.probabilities
        )
        ids = [event_id for event_id, stays in zip(self.event_ids, kept, strict=True) if stays]
        return Live(ids, self.flagged[kept], self.violates[kept], self.probabilities[kept])


def watch(label: str, promise: Promise, live: Live, *, num_promises: int, segment: str | None = None) -> Watch:
    """Hold live verdicts against a promise that is one of so many."""
    rows = live.uniform()
    about, wrong, limit = {
        "benign_fpr": (~rows.violates, rows.flagged, promise.limit),
        "precision": (rows.flagged, ~rows.violates, 1 - promise.limit),
        "recall": (rows.violates, ~rows.flagged, 1 - promise.limit),
    }[promise.kind]
    num_rows, num_wrong = int(about.sum()), int((about & wrong).sum())
    evidence = e_value(num_wrong, num_rows, limit)
    return Watch(
        label=label,
        segment=segment,
        kind=promise.kind,
        limit=promise.limit,
        num_rows=num_rows,
        num_wrong=num_wrong,
        e_value=evidence,
        is_broken=evidence >= num_promises / (1 - promise.confidence),
    )


def e_value(num_wrong: int, num_rows: int, limit: float) -> float:
    """The evidence against a rate of at most `limit`; 1 where nothing was seen."""
    num_right = num_rows - num_wrong
    above = betaincc(num_wrong + 1, num_right + 1, limit)
    if above <= 0:
        return 0.0
    mixture = betaln(num_wrong + 1, num_right + 1) + math.log(above) - math.log(1 - limit)
    at_limit = num_wrong * math.log(limit) + num_right * math.log(1 - limit)
    return math.exp(min(700.0, mixture - at_limit))


def _draw(event_id: str) -> float:
    """A number in [0, 1) that belongs to an event."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big") / 2**64
