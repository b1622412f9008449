"""Thresholds per segment, and the band below a threshold that people look at.

The confidence of a promise is shared out over its segments (Bonferroni), so that it holds in all of them at once. Which
values of the column stand alone and which are pooled as `other` is decided on the guide rows, so that the proof never
saw its own rows.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, Sample
from training.policy import Promise
from training.thresholds import OTHER, Threshold, choose

_FEWEST_ALONE = 200  # guide rows of a segment that gets a threshold of its own
_MOST_ALONE = 20


def choose_per_segment(
    promise: Promise,
    calibration: Sample,
    *,
    guide: Sample,
    segments: NDArray[np.object_],
    guide_segments: NDArray[np.object_],
) -> Threshold:
    """A threshold for each segment such that the promise holds in all of them at once."""
    most_common = Counter(map(str, guide_segments)).most_common(_MOST_ALONE)
    alone = [value for value, num_rows in most_common if num_rows >= _FEWEST_ALONE]
    named, guide_named = (_pooled(rows, alone) for rows in (segments, guide_segments))
    shared = promise.model_copy(update={"confidence": 1 - (1 - promise.confidence) / (len(alone) + 1)})
    found = {
        value: choose(shared, calibration.where(named == value), guide=guide.where(guide_named == value))
        for value in ([*alone, OTHER] if OTHER in named or not alone else alone)  # what nobody is in needs no proof
    }
    return _summary(promise, found)


def review_band(chosen: Threshold, scores: Floats, cuts: Floats, *, per_day: Floats, capacity: int) -> Threshold:
    """Open a band below the threshold as wide as people have time for; a row stands for `per_day` events of a day."""
    below = np.flatnonzero(scores < cuts)
    order = below[np.argsort(-scores[below], kind="stable")]
    fits = np.cumsum(per_day[order]) <= capacity
    last = int(fits.sum())
    while 0 < last < len(order) and scores[order[last]] == scores[order[last - 1]]:
        last -= 1  # all rows of one score are in the band, or none
    review_from = float(scores[order[last - 1]]) if last else None
    return chosen.model_copy(update={"review_from": review_from})


def _pooled(segments: NDArray[np.object_], alone: list[str]) -> NDArray[np.object_]:
    return np.where(np.isin(segments.astype(str), alone), segments, OTHER)


def _summary(promise: Promise, found: dict[str, Threshold]) -> Threshold:
    proved = [one for one in found.values() if one.threshold is not None]
    missing = {value: one for value, one in found.items() if one.threshold is None}
    why = "; ".join(f"{promise.per} is {value}: {one.reason}" for value, one in missing.items())
    more = [one.num_more_labels for one in missing.values() if one.num_more_labels is not None]
    facts = {"promise": promise, "segments": found, "reason": why or None, "num_more_labels": sum(more) or None}
    if not proved:
        return Threshold.model_validate(facts)
    strictest = max(proved, key=lambda one: one.threshold or 0.0)
    worst = min if promise.kind != "benign_fpr" else max
    bounds = [one.bound for one in proved if one.bound is not None]
    num_rows = sum(one.num_rows for one in proved)
    return Threshold.model_validate(
        facts
        | {
            "threshold": strictest.threshold,
            "bound": worst(bounds),
            "observed": sum((one.observed or 0.0) * one.num_rows for one in proved) / num_rows,
            "num_rows": num_rows,
        }
    )
