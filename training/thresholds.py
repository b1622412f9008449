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

recall: as benign_fpr, with the violations in ascending order; the threshold is the strictest that keeps it. A
`min_recall` beside a benign_fpr is one exact test at the threshold that benign rows alone chose, each half of the
promise at half the error.

Rows drawn with unequal probabilities are first thinned to a uniform sample (a row of weight w stays with probability
w / max w): the binomial bounds then hold as they are, at the price of rows.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from training.metrics import Floats, Sample
from training.policy import Contract, Promise

OTHER = "other"
_THINNING_SEED = 20
_NUM_STEPS = 60
_MOST_ROWS = 100_000_000
_FEWEST_TO_ADVISE = 10  # rows whose precision says what more labels would show


class Threshold(Contract):
    """A label is found where its probability is at least `threshold`; None where the promise is infeasible.

    `bound` is what was proved, `observed` the plain share in the `num_rows` rows that it was proved on (benign rows for
    `benign_fpr`, flagged rows for `precision`, violations for `recall`). `num_more_labels` estimates what would make an
    infeasible one feasible; None where that cannot be told, or none would. `recall_bound` is what was proved beside it
    where the promise has a `min_recall`.

    Where the promise is per segment, `segments` holds what counts, by value of its column, and `threshold` is the
    strictest of them. Probabilities from `review_from` up to the threshold are for people to look at.
    """

    promise: Promise
    threshold: float | None = None
    bound: float | None = None
    observed: float | None = None
    num_rows: int = 0
    reason: str | None = None
    num_more_labels: int | None = None
    recall_bound: float | None = None
    review_from: float | None = None
    segments: dict[str, "Threshold"] = {}

    def at(self, segment: str) -> float | None:
        """The threshold in a segment; a value that stands for itself nowhere is one of `other`."""
        if not self.segments:
            return self.threshold
        found = self.segments.get(segment) or self.segments.get(OTHER)
        return found.threshold if found else None

    @property
    def parts(self) -> "list[tuple[str | None, Threshold]]":
        """Each segment with what counts in it; where the promise is not per segment, this one."""
        return [*self.segments.items()] or [(None, self)]

    @property
    def loosest(self) -> float:
        """From which probability on something is flagged in some segment; infinite where nothing ever is."""
        found = [one.threshold for one in (self, *self.segments.values()) if one.threshold is not None]
        return min(found, default=math.inf)

    def cuts(self, slices: Mapping[str, NDArray[np.object_]]) -> Floats | float | None:
        """The threshold of each row, infinite where nothing is flagged, or the one threshold of all."""
        if not self.segments or self.promise.per is None:
            return self.threshold
        found = {value: self.at(value) for value in set(slices[self.promise.per])}
        known = {value: math.inf if cut is None else cut for value, cut in found.items()}
        return np.array([known[value] for value in slices[self.promise.per]])


def choose(promise: Promise, calibration: Sample, *, guide: Sample) -> Threshold:
    """The loosest threshold that provably keeps the promise."""
    uniform = thin(calibration)
    if promise.kind == "benign_fpr":
        found = _within_fpr(promise, uniform)
    elif promise.kind == "recall":
        found = _with_recall(promise, uniform)
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
    error = (1 - promise.confidence) / (1 if promise.min_recall is None else 2)
    benign = np.sort(sample.scores[~sample.labels])[::-1]
    num_needed = _num_needed(promise.limit, error)
    if len(benign) < num_needed:
        more = _num_more(num_needed, len(benign), sample)
        reason = f"{len(benign)} benign labels; even without a false alarm the proof needs {num_needed}"
        return Threshold(promise=promise, num_rows=len(benign), reason=reason, num_more_labels=more)
    num_allowed, bound = _allowed(promise.limit, len(benign), error)
    threshold = _just_above(benign[num_allowed])
    if threshold > 1:
        reason = f"{num_allowed + 1} benign rows have the highest possible score; no threshold lies above them"
        return Threshold(promise=promise, num_rows=len(benign), reason=reason)
    found = Threshold(
        promise=promise,
        threshold=threshold,
        bound=bound,
        observed=float((benign >= threshold).mean()),
        num_rows=len(benign),
    )
    return found if promise.min_recall is None else _and_recall(found, threshold, sample, error)


def _and_recall(found: Threshold, threshold: float, sample: Sample, error: float) -> Threshold:
    """One exact test at a threshold that no violation had a part in choosing."""
    min_recall = found.promise.min_recall
    assert min_recall is not None
    positives = sample.scores[sample.labels]
    num_found = int((positives >= threshold).sum())
    bound = float(beta.ppf(error, num_found, len(positives) - num_found + 1)) if num_found else 0.0
    if bound >= min_recall:
        return found.model_copy(update={"recall_bound": bound})
    reason = f"{num_found} of {len(positives)} violations are found, which proves a recall of {bound:.3f}"
    facts = {"threshold": None, "recall_bound": bound, "reason": reason}
    num_fewest = _num_needed(1 - min_recall, error)
    if len(positives) < min(_FEWEST_TO_ADVISE, num_fewest):
        facts["reason"] = f"{reason}: too few to say; even if none is missed the proof needs {num_fewest}"
        return found.model_copy(update=facts | {"num_more_labels": _num_more(num_fewest, len(positives), sample)})
    seen = num_found / len(positives)
    if seen <= min_recall:
        facts["reason"] = f"{reason}: it takes a better detector, not more labels"
        return found.model_copy(update=facts)
    needed = _num_rows_proving(min_recall, error, seen)
    return found.model_copy(update=facts | {"num_more_labels": _num_more(needed, len(positives), sample)})


def _with_recall(promise: Promise, sample: Sample) -> Threshold:
    error, most_missed = 1 - promise.confidence, 1 - promise.limit
    positives = np.sort(sample.scores[sample.labels])
    num_needed = _num_needed(most_missed, error)
    if len(positives) < num_needed:
        more = _num_more(num_needed, len(positives), sample)
        reason = f"{len(positives)} violations; even if none is missed the proof needs {num_needed}"
        return Threshold(promise=promise, num_rows=len(positives), reason=reason, num_more_labels=more)
    num_allowed, missed = _allowed(most_missed, len(positives), error)
    threshold = float(positives[num_allowed])
    return Threshold(
        promise=promise,
        threshold=threshold,
        bound=1 - missed,
        observed=float((positives >= threshold).mean()),
        num_rows=len(positives),
    )


def _allowed(limit: float, num_rows: int, error: float) -> tuple[int, float]:
    """How many of so many rows may be wrong for the share of wrong ones to be proved within a limit, and that proof."""
    allowed = np.arange(int(limit * num_rows) + 1)
    bounds = beta.ppf(1 - error, allowed + 1, num_rows - allowed)
    most = int(np.flatnonzero(bounds <= limit * (1 + 1e-12))[-1])  # rounding may put the first just above it
    return most, float(bounds[most])


def _num_needed(limit: float, error: float) -> int:
    return math.ceil(math.log(error) / math.log(1 - limit))


def _num_more(num_needed: int, num_here: int, sample: Sample) -> int | None:
    """How many rows bring the missing ones of a kind, if that kind stays as frequent; None where none is here."""
    return math.ceil((num_needed - num_here) * len(sample.scores) / num_here) if num_here else None


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
    num_fewest = _num_needed(1 - promise.limit, 1 - promise.confidence)
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
    num_fewest = _num_needed(1 - promise.limit, 1 - promise.confidence)
    num_seen, num_violations = facts.get("num_rows", len(sample.scores)), int(sample.labels.sum())
    num_advising = min(_FEWEST_TO_ADVISE, num_fewest)
    if num_seen < num_advising or not num_violations:
        seen = f"{num_seen} labels to flag and {num_violations} violations in all are too few to say"
        reason = f"{seen}; even without a false alarm the proof needs {num_fewest} flagged ones"
        more = _num_more(num_fewest, num_seen if num_violations else 0, sample)
        return Threshold.model_validate({**facts, "promise": promise, "reason": reason, "num_more_labels": more})
    thresholds = np.sort(sample.scores)[::-1][num_advising - 1 :]
    num_flagged, num_hits = _counts(sample, thresholds)
    precision = num_hits / num_flagged
    if precision.max() <= promise.limit:
        reason = f"the best precision seen is {precision.max():.3f}: it takes a better detector, not more labels"
        return Threshold.model_validate({**facts, "promise": promise, "reason": reason})
    best = int(np.argmax(precision))
    needed = _num_rows_proving(promise.limit, 1 - promise.confidence, float(precision[best]))
    reason = f"the {num_flagged[best]} highest-scored labels have precision {precision[best]:.3f}; proof takes {needed}"
    more = max(1, math.ceil((needed / num_flagged[best] - 1) * len(sample.scores)))
    return Threshold.model_validate({**facts, "promise": promise, "reason": reason, "num_more_labels": more})


def _num_rows_proving(limit: float, error: float, share: float) -> int:
    """The fewest rows at which this observed share would prove that it is at least a limit; never over _MOST_ROWS."""
    sizes = np.unique(np.geomspace(1, _MOST_ROWS, 2000).astype(np.int64))
    hits = np.floor(sizes * share)
    bounds = beta.ppf(error, np.maximum(hits, 1e-9), sizes - hits + 1)
    proving = sizes[bounds >= limit]
    return int(proving[0]) if len(proving) else _MOST_ROWS


def _just_above(score: float) -> float:
    return float(np.nextafter(np.float32(score), np.float32(2)))
