"""How good scores are: ranking, calibration and rates at a threshold, each with an interval from one bootstrap.

Shapes: N rows, C entities, R replicates, T distinct thresholds (strictest first).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from training.policy import Contract

Floats = NDArray[np.floating]
NUM_REPLICATES = 200
_NUM_BINS = 15
_CHUNK_CELLS = 2_000_000  # weights of one chunk of replicates stay within the cache's reach


class Estimate(Contract):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """Scores of the rows whose verdict on one label is known.

    `weights` are 1 / sampling probability; `clusters` number the entities, so that rows of one account stay together.
    """

    scores: Floats
    labels: NDArray[np.bool_]
    weights: Floats
    clusters: NDArray[np.integer]

    def where(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "Sample":
        """The same sample, of some rows or in another order."""
        return replace(
            self,
            scores=self.scores[rows],
            labels=self.labels[rows],
            weights=self.weights[rows],
            clusters=self.clusters[rows],
        )


@dataclass(frozen=True)
class Curve:
    """Weighted true and false positives at each distinct threshold [R, T]."""

    true: Floats
    false: Floats


def average_precision(curve: Curve) -> Floats:
    """Area under the steps of the precision-recall curve, as sklearn's `average_precision_score`."""
    precision_RT = _ratio(curve.true, curve.true + curve.false, empty=0.0)
    gained_RT = np.diff(curve.true, axis=1, prepend=0.0)
    return _ratio((gained_RT * precision_RT).sum(axis=1), curve.true[:, -1])


def auc(curve: Curve) -> Floats:
    """Area under the ROC curve; ties count half."""
    true_before_RT = np.hstack([np.zeros_like(curve.true[:, :1]), curve.true[:, :-1]])
    added_RT = np.diff(curve.false, axis=1, prepend=0.0)
    area_R = (added_RT * (curve.true + true_before_RT)).sum(axis=1) / 2
    return _ratio(area_R, curve.true[:, -1] * curve.false[:, -1])


def recall_at_fpr(curve: Curve, limit: float) -> Floats:
    """The best recall of a threshold that flags at most `limit` of the benign rows."""
    total_R = curve.false[:, -1]
    num_allowed_R = (curve.false <= (limit * total_R * (1 + 1e-12))[:, None]).sum(axis=1)
    true_RT = np.hstack([np.zeros_like(curve.true[:, :1]), curve.true])
    reached_R = true_RT[np.arange(len(true_RT)), num_allowed_R]
    return np.where(total_R > 0, _ratio(reached_R, curve.true[:, -1]), np.nan)


RANKING: dict[str, Callable[[Curve], Floats]] = {
    "average_precision": average_precision,
    "auc": auc,
    "recall_at_1pct_fpr": lambda curve: recall_at_fpr(curve, 0.01),
    "recall_at_01pct_fpr": lambda curve: recall_at_fpr(curve, 0.001),
}


def draw_replicates(num_clusters: int, *, num_replicates: int = NUM_REPLICATES, seed: int = 0) -> NDArray[np.uint8]:
    """How often each entity is drawn [R + 1, C]; row 0 is the data as they are.

    Poisson bootstrap (Chamandy et al., "Estimating uncertainty for massive data streams", Google 2012). Equal draws
    pair what is computed from them: the replicates of a difference are the difference of the replicates.
    """
    generator = np.random.default_rng(seed)
    draws_RC = np.ones((num_replicates + 1, num_clusters), dtype=np.uint8)
    for row in draws_RC[1:]:
        row[:] = generator.poisson(1.0, num_clusters)
    return draws_RC


def replicate(
    sample: Sample, draws_RC: NDArray[np.uint8], *, threshold: Floats | float | None = None
) -> dict[str, Floats]:
    """Every metric on every replicate [R + 1]; NaN where a replicate has no row to measure it on.

    `threshold` is one for all rows, or one per row [N]. Rows of one entity alone have no replicates: however often it
    is drawn, it says the same.
    """
    order = np.argsort(-sample.scores, kind="stable")
    ordered = sample.where(order)
    columns = _additive_columns(ordered, threshold[order] if isinstance(threshold, np.ndarray) else threshold)
    weights = drawn_weights(ordered.weights, ordered.clusters, draws_RC)
    chunks = [_metrics_of(ordered, weights_RN, columns) for weights_RN in weights]
    found = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    if np.ptp(sample.clusters) == 0:
        for values_R in found.values():
            values_R[1:] = np.nan
    return found


def drawn_weights(weights: Floats, clusters: NDArray[np.integer], draws_RC: NDArray[np.uint8]) -> Iterator[Floats]:
    """The weight of each row in each replicate, a chunk of replicates at a time [r, N]."""
    num_per_chunk = max(1, _CHUNK_CELLS // max(1, len(weights)))
    for first in range(0, len(draws_RC), num_per_chunk):
        yield draws_RC[first : first + num_per_chunk][:, clusters] * weights


def estimate(values_R: Floats, *, is_biased: bool = False) -> Estimate | None:
    """The value on the data and its percentile interval; None where the data cannot show it.

    `is_biased`: the basic (reflected) interval, for a statistic such as the calibration error that noise only raises.
    """
    value, replicates_R = float(values_R[0]), values_R[1:][~np.isnan(values_R[1:])]
    if np.isnan(value) or not len(replicates_R):
        return None
    low, high = (float(q) for q in np.quantile(replicates_R, [0.025, 0.975]))
    if is_biased:
        low, high = max(0.0, 2 * value - high), max(value, 2 * value - low)
    return Estimate(value=value, low=low, high=high)


def estimate_rate(values_R: Floats, weights: Floats) -> Estimate | None:
    """A share of rows: the wider of the clustered bootstrap and the exact binomial interval.

    The bootstrap alone would answer [0, 0] where nothing was seen. Weighted rows count as Kish's effective number.
    """
    bootstrap = estimate(values_R)
    if bootstrap is None:
        return None
    num_effective = float(weights.sum() ** 2 / (weights**2).sum())
    low, high = binomial_interval(bootstrap.value * num_effective, num_effective, confidence=0.95)
    return Estimate(value=bootstrap.value, low=min(low, bootstrap.low), high=max(high, bootstrap.high))


def binomial_interval(num_hits: float, num_rows: float, *, confidence: float) -> tuple[float, float]:
    """The two-sided exact interval of a share (Clopper and Pearson, 1934); each end alone misses half as often."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, num_hits, num_rows - num_hits + 1)) if num_hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, num_hits + 1, num_rows - num_hits)) if num_hits < num_rows else 1.0
    return low, high


def card_precision(
    days: NDArray[np.integer], cards: NDArray[np.object_], scores: Floats, *, labels: NDArray[np.bool_], top: int = 100
) -> Floats:
    """Share of the `top` highest-scored cards of each day that were defrauded on it [days].

    A card found on one day is blocked on the next ones (the Fraud Detection Handbook, chapter 4.3).
    """
    found: set[object] = set()
    precision = []
    for day in np.unique(days):
        rows = np.flatnonzero(days == day)
        rows = rows[[card not in found for card in cards[rows]]]
        names, card_of_row = np.unique(cards[rows].astype(str), return_inverse=True)
        best, is_defrauded = np.full(len(names), -np.inf), np.zeros(len(names), dtype=bool)
        np.maximum.at(best, card_of_row, scores[rows])
        np.logical_or.at(is_defrauded, card_of_row, labels[rows])
        first = np.argsort(-best, kind="stable")[:top]
        found.update(names[first][is_defrauded[first]])
        precision.append(is_defrauded[first].sum() / top)
    return np.array(precision)


def estimate_over_days(per_day: Floats) -> Estimate | None:
    """The mean over days with a bootstrap over days; one day alone has no interval."""
    if len(per_day) < 2:
        return None
    drawn = np.random.default_rng(0).integers(0, len(per_day), (NUM_REPLICATES, len(per_day)))
    return estimate(np.append(per_day.mean(), per_day[drawn].mean(axis=1)))


def _metrics_of(ordered: Sample, weights_RN: Floats, columns: dict[str, Floats]) -> dict[str, Floats]:
    ends = np.append(np.flatnonzero(np.diff(ordered.scores)), len(ordered.scores) - 1)
    true_RT = np.cumsum(weights_RN * ordered.labels, axis=1)[:, ends]
    curve = Curve(true=true_RT, false=np.cumsum(weights_RN, axis=1)[:, ends] - true_RT)
    sums = dict(zip(columns, (weights_RN @ np.column_stack(list(columns.values()))).T, strict=True))
    gaps_RB = np.stack([np.abs(sums[f"gap_{b}"]) for b in range(_NUM_BINS)])
    metrics = {name: metric(curve) for name, metric in RANKING.items()}
    metrics["ece"] = _ratio(gaps_RB.sum(axis=0), sums["rows"])
    metrics["brier"] = _ratio(sums["squared_error"], sums["rows"])
    if "flagged" in sums:
        metrics["recall"] = _ratio(sums["flagged_positives"], sums["positives"])
        metrics["benign_fpr"] = _ratio(sums["flagged"] - sums["flagged_positives"], sums["rows"] - sums["positives"])
        metrics["precision"] = _ratio(sums["flagged_positives"], sums["flagged"])
        metrics["flagged_share"] = _ratio(sums["flagged"], sums["rows"])
    return metrics


def _additive_columns(sample: Sample, threshold: Floats | float | None) -> dict[str, Floats]:
    """What calibration and rates are sums of, per row: one matrix product gives them for all replicates."""
    residuals = sample.scores.astype(np.float64) - sample.labels
    bins = np.minimum((sample.scores * _NUM_BINS).astype(int), _NUM_BINS - 1)
    columns = {f"gap_{b}": residuals * (bins == b) for b in range(_NUM_BINS)}
    columns |= {"squared_error": residuals**2, "rows": np.ones_like(residuals)}
    if threshold is not None:
        is_flagged = sample.scores >= threshold
        columns |= {"flagged": is_flagged, "positives": sample.labels, "flagged_positives": is_flagged & sample.labels}
    return columns


def _ratio(part: Floats, whole: Floats, *, empty: float = np.nan) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(part), empty, dtype=np.float64), where=whole > 0)
