"""Chooses from where on a cascade asks the whole network, on `validation`; thresholds are proved afterwards, with it.

One number is chosen for all labels: how far below its threshold the first member must see every label of an event for
the event to end early. It is a threshold with a promise of recall, about what the whole network flags. For the report,
every other point is measured as well.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from training import calibration, thresholds
from training.cascade import STORED, Bools, goes_on
from training.detector import Cascade, DetectorSpec
from training.metrics import Floats, Sample
from training.policy import Promise
from training.predictions import Predictions
from training.scorer import probabilities
from training.thresholds import Threshold

_MARGIN = 1e-4  # log-odds: the event that decides the cut must not depend on the last bit of a logit
_KEPT = (0.999, 0.995, 0.99, 0.98, 0.97, 0.95, 0.9, 0.8, 0.7, 0.5)


@dataclass(frozen=True)
class Choice:
    """The first member's log-odds of stored rows, their thresholds, and what was found."""

    odds: Floats
    platt: dict[str, calibration.Platt]
    cuts: Floats
    report: dict[str, Any]

    @property
    def ends_early(self) -> Bools:
        """The stored rows that the first member answers alone."""
        return ~goes_on(self.odds, self.cuts)


def apply(
    run_dir: Path, spec: DetectorSpec, stored: Predictions, scores: Floats, *, guide: dict[str, Threshold]
) -> Floats:
    """The probabilities with the cascade that is written to the bundle, or those without where none pays.

    `guide` holds thresholds for the scores of the whole network that were chosen on `validation`.
    """
    assert spec.cascade is not None
    choice = choose(spec.cascade, stored, scores, guide)
    (run_dir / STORED).write_bytes(orjson.dumps(choice.report, option=orjson.OPT_INDENT_2))
    sealed = run_dir / "bundle" / STORED
    if not choice.report["pays"]:
        sealed.unlink(missing_ok=True)
        return scores
    rows = zip(choice.platt.items(), choice.cuts, strict=True)
    content = {label: [one.a, one.b, float(cut) if np.isfinite(cut) else None] for (label, one), cut in rows}
    sealed.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return np.where(choice.ends_early[:, None], probabilities(choice.odds), scores)


def choose(wanted: Cascade, stored: Predictions, scores: Floats, guide: dict[str, Threshold]) -> Choice:
    """Find the cuts; the report says what every point keeps of what is flagged, and asks about of the benign rows."""
    assert stored.first_logits is not None
    of_first = replace(stored, logits=stored.first_logits)
    platt = calibration.fit_all(of_first.of("validation"))
    odds = np.column_stack([platt[name].log_odds(of_first.logits[:, at]) for at, name in enumerate(stored.labels)])
    loosest = np.array([guide[label].loosest for label in stored.labels])
    with np.errstate(divide="ignore"):
        floors = np.log(loosest) - np.log1p(-np.minimum(loosest, 1))  # infinite where a label is never flagged
    rows = np.flatnonzero((stored.splits == "validation") & (stored.weights > 0))
    suspicion, weights = (odds[rows] - floors).max(axis=1), stored.weights[rows]
    flagged = np.asarray((scores[rows] >= loosest).any(axis=1))
    benign = np.asarray((stored.verdicts[rows] != 1).all(axis=1))
    sample = Sample(suspicion, flagged, weights, stored.entities[rows])
    found = thresholds.choose(Promise(kind="recall", limit=wanted.min_kept), sample, guide=sample)

    def asked(cut: float) -> float:
        return float(np.average(suspicion[benign] >= cut, weights=weights[benign]))

    points = np.quantile(suspicion[flagged], [1 - kept for kept in _KEPT]) if flagged.any() else []
    frontier = [{"kept": k, "asked": asked(cut)} for k, cut in zip(_KEPT, points, strict=False)]
    cut = np.inf if found.threshold is None else found.threshold - _MARGIN
    share = asked(cut) if np.isfinite(cut) else None
    report = {
        "pays": share is not None and share <= wanted.max_asked,
        "asked": share,
        "kept": found.observed,
        "kept_bound": found.bound,
        "num_flagged": int(flagged.sum()),
        "reason": found.reason,
        "frontier": frontier,
    }
    return Choice(odds, platt, floors + cut, report)
