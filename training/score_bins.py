"""How far the scores of today's events lie from those that a release was evaluated on.

The population stability index over bins of equal share: 0 is the same, and 0.2 is a usual limit for looking closer
(Siddiqi, Credit Risk Scorecards, 2006). Few events are far from anything by chance alone, so chance is bounded, too.
"""

from typing import Self

import numpy as np
from scipy.stats import chi2

from training.metrics import Floats
from training.policy import Contract

_NUM_BINS = 10
LIMIT = 0.2


class Shift(Contract):
    """The index, and what it stays below in 99 % of samples of this size from the evaluated population."""

    index: float
    by_chance: float
    num_rows: int

    @property
    def is_drift(self) -> bool:
        """Far, and not by chance."""
        return self.index > max(LIMIT, self.by_chance)


class ScoreBins(Contract):
    """Rising edges between bins and the population's share in each; `num_rows` is the effective number of rows."""

    edges: list[float]
    shares: list[float]
    num_rows: float

    @classmethod
    def of(cls, scores: Floats, weights: Floats) -> Self:
        """Bins of about equal share; scores that are tied share one."""
        order = np.argsort(scores)
        reached = np.cumsum(weights[order]) / weights.sum()
        inner = np.arange(1, _NUM_BINS) / _NUM_BINS
        edges = np.unique(scores[order][np.searchsorted(reached, inner).clip(max=len(scores) - 1)])
        counts = np.bincount(np.searchsorted(edges, scores), weights=weights, minlength=len(edges) + 1)
        return cls(
            edges=edges.astype(float).tolist(),
            shares=(counts / weights.sum()).tolist(),
            num_rows=float(weights.sum() ** 2 / (weights**2).sum()),
        )

    def shift(self, scores: Floats) -> Shift:
        """How far these scores lie from the evaluated ones; half a row is added to each bin, so that none is empty."""
        counts = np.bincount(np.searchsorted(self.edges, scores), minlength=len(self.shares)) + 0.5
        found = counts / counts.sum()
        expected = np.array(self.shares) * self.num_rows + 0.5
        expected /= expected.sum()
        index = float(((found - expected) * np.log(found / expected)).sum())
        by_chance = chi2.ppf(0.99, max(1, len(counts) - 1)) * (1 / max(1, len(scores)) + 1 / self.num_rows)
        return Shift(index=index, by_chance=float(by_chance), num_rows=len(scores))
