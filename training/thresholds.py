"""Chooses thresholds that keep a promise on the population with a stated confidence, or says why none can be proved.

Both methods are exact for any sample size and pay nothing for the many thresholds they look at. They assume that rows
are independent draws of the population; `calibration` must have been used for nothing else.

benign_fpr: of n benign rows the k highest-scored may be flagged, where k is the largest number whose exact binomial
bound (Clopper and Pearson, 1934) is within the limit. k depends on n alone, not on the data, so the threshold just
above the (k + 1)-th highest is an order statistic whose false-positive rate is Beta(k + 1, n - k) at worst: one test,
no correction (the tolerance limit of Wilks, 1941).

precision: fixed-sequence testing of "Learn then Test" (Angelopoulos et al., arXiv 2110.01052). The sequence of
thresholds and its start, where the evidence is strongest, come from the `guide` rows (the validation split); it is then
walked on `calibration` towards looser ones, each tested at the full level, and ends before the first that fails.

Rows drawn with unequal probabilities are first thinned to a uniform sample (a row of weight w stays with probability
w / max w): the binomial bounds then hold as they are, at the price of rows.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from training.metrics import Floats, Sample
from training.policy import Contract, Promise

_THINNING_SEED = 20
_NUM_STEPS = 60
_MOST_ROWS = 100_000_000
_FEWEST_TO_ADVISE = 10  # rows whose precision says what more labels would show


class Threshold(Contract):
    """A label is found where its probability is at least `threshold`; None where the promise is infeasible.

    `bound` is what was proved, `observed` the plain share in the `num_rows` rows that it was proved on (benign rows for
    `benign_fpr`, flagged rows for `precision`). `num_more_labels` estimates what would make an infeasible one feasible.
    """

    promise: Promise
    threshold: float | None = None
    bound: float | None = None
    observed: float | None = None
    num_rows: int = 0
    reason: str | None = None
    num_more_labels: int | None = None


def choose(promise: Promise, calibration: Sample, *, guide: Sample) -> Threshold:
    """The loosest threshold that provably keeps the promise."""
    uniform = thin(calibration)
    if promise.kind == "benign_fpr":
        found = _within_fpr(promise, uniform)
    else:
        found = _with_precision(promise, uniform, thin(guide))
    if found.num_more_labels is None or not len(uniform.scores):
        return found
    kept = len(uniform.scores) / len(calibration.scores)
    return found.model_copy(update={"num_more_labels": math.ceil(found.num_more_labels / kept)})


def thin(sample: Sample) -> Sample:
    """A uniform random subsample of rows that were drawn with unequal probabilities."""
    if not len(sample.weights) or sample.weights.min() == sample.weights.max():
        return sample
    draws = np.random.default_rng(_THINNING_SEED).random(len(sample.weights))
    return sample.where(draws < sample.weights / sample.weights.max())


def _within_fpr(promise: Promise, sample: Sample) -> Threshold:
    benign = np.sort(sample.scores[~sample.labels])[::-1]
    num_needed = math.ceil(math.log(1 - promise.confidence) / math.log(1 - promise.limit))
    if len(benign) < num_needed:
        more = math.ceil((num_needed - len(benign)) * len(sample.scores) / max(1, len(benign)))
        reason = f"{len(benign)} benign labels; even without a false alarm the proof needs {num_needed}"
        return Threshold(promise=promise, num_rows=len(benign), reason=reason, num_more_labels=more)
    allowed = np.arange(int(promise.limit * len(benign)) + 1)
    bounds = beta.ppf(promise.confidence, allowed + 1, len(benign) - allowed)
    num_allowed = int(np.flatnonzero(bounds <= promise.limit)[-1])
    threshold = _just_above(benign[num_allowed])
    if threshold > 1:
        reason = f"{num_allowed + 1} benign rows have the highest possible score; no threshold lies above them"
        return Threshold(promise=promise, num_rows=len(benign), reason=reason)
    return Threshold(
        promise=promise,
        threshold=threshold,
        bound=float(bounds[num_allowed]),
        observed=float((benign >= threshold).mean()),
        num_rows=len(benign),
    )


def _with_precision(promise: Promise, sample: Sample, guide: Sample) -> Threshold:
    chosen: Threshold | None = None
    first: Threshold | None = None
    for threshold in _sequence(promise, guide):
        tested = _test_precision(promise, sample, threshold)
        first = first or tested
        if tested.bound is None or tested.bound < promise.limit:
            break
        chosen = tested
    return chosen or _why_not_precise(promise, sample, first)


def _sequence(promise: Promise, guide: Sample) -> Floats:
    """Thresholds from where the guide's evidence is strongest to the loosest; none that flags too few to prove it."""
    num_fewest = math.ceil(math.log(1 - promise.confidence) / math.log(promise.limit))
    if len(guide.scores) < num_fewest:
        return np.array([])
    scores = np.sort(guide.scores)[::-1]
    ranks = np.unique(np.geomspace(num_fewest, len(scores), _NUM_STEPS).astype(int)) - 1
    thresholds = np.unique(scores[ranks])[::-1]
    num_flagged, num_hits = _counts(guide, thresholds)
    p_values = binom.sf(num_hits - 1, num_flagged, promise.limit)
    return thresholds[int(np.argmin(p_values)) :]


def _counts(sample: Sample, thresholds: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How many rows are flagged at each threshold, and how many of them rightly."""
    everything, hits = np.sort(sample.scores), np.sort(sample.scores[sample.labels])
    num_flagged = len(everything) - np.searchsorted(everything, thresholds, side="left")
    return num_flagged, len(hits) - np.searchsorted(hits, thresholds, side="left")


def _test_precision(promise: Promise, sample: Sample, threshold: float) -> Threshold:
    (num_flagged,), (num_hits,) = _counts(sample, np.array([threshold]))
    if num_flagged == 0:
        return Threshold(promise=promise, threshold=float(threshold))
    bound = float(beta.ppf(1 - promise.confidence, num_hits, num_flagged - num_hits + 1)) if num_hits else 0.0
    return Threshold(
        promise=promise,
        threshold=float(threshold),
        bound=bound,
        observed=float(num_hits / num_flagged),
        num_rows=int(num_flagged),
    )


def _why_not_precise(promise: Promise, sample: Sample, first: Threshold | None) -> Threshold:
    facts = first.model_dump(exclude={"promise", "threshold"}) if first else {}
    thresholds = np.sort(sample.scores)[::-1][_FEWEST_TO_ADVISE - 1 :]
    num_flagged, num_hits = _counts(sample, thresholds)
    precision = num_hits / np.maximum(num_flagged, 1)
    if precision.max(initial=0) <= promise.limit:
        reason = (
            f"the best precision seen is {precision.max(initial=0):.3f}: it takes a better detector, not more labels"
        )
        return Threshold.model_validate({**facts, "promise": promise, "reason": reason})
    best = int(np.argmax(precision))
    needed = _num_flagged_needed(promise, float(precision[best]))
    reason = f"the {num_flagged[best]} highest-scored labels have precision {precision[best]:.3f}; proof takes {needed}"
    more = max(1, math.ceil((needed / num_flagged[best] - 1) * len(sample.scores)))
    return Threshold.model_validate({**facts, "promise": promise, "reason": reason, "num_more_labels": more})


def _num_flagged_needed(promise: Promise, precision: float) -> int:
    """The fewest flagged rows at which this observed precision would prove the promise."""
    sizes = np.unique(np.geomspace(1, _MOST_ROWS, 2000).astype(np.int64))
    hits = np.floor(sizes * precision)
    bounds = beta.ppf(1 - promise.confidence, np.maximum(hits, 1e-9), sizes - hits + 1)
    return int(sizes[np.flatnonzero(bounds >= promise.limit)[0]])


def _just_above(score: float) -> float:
    return float(np.nextafter(np.float32(score), np.float32(2)))
