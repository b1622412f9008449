"""How the deployed releases would have done on a day of the world, judged by its truth."""

import json
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from feature_repo.lake import Lake
from orchestration.approvals import Approvals
from orchestration.scoring import with_features
from orchestration.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What one label's threshold found and whom it burdened; null where no threshold keeps the promise."""

    detector: str
    label: str
    num_positive: int
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    num_benign: int
    fpr: float | None
    fpr_low: float | None
    fpr_high: float | None


def judge_day(settings: Settings, desk: Approvals, detector: str, day: date) -> list[Outcome]:
    """Score every event of a day with the release that is deployed, from what was known at each event."""
    from serving.bundle import verify
    from serving.release import read_spec
    from training.scorer import Scorer

    deployed = desk.servable(detector)
    assert deployed is not None
    release = verify(desk.shelves.release(detector, deployed.release), deployed.release)
    spec = read_spec(release)
    events = _day(settings.lake, spec.events, day)
    scores = Scorer.load(release.path).score(with_features(settings.lake, spec, events))
    thresholds = json.loads((release.path / "thresholds.json").read_text(encoding="utf-8"))
    return [
        _outcome(detector, label, scores[:, at], _truth(events, label), threshold=thresholds[label]["threshold"])
        for at, label in enumerate(spec.labels)
    ]


def _day(lake: Lake, table: str, day: date) -> pa.Table:
    """The events of a day with the columns of their truth."""
    with lake.connect() as connection:
        query = f"""
            SELECT e.*, t.* EXCLUDE (event_id, event_us)
            FROM ({lake.select("events", table, first=day, last=day)}) AS e
            JOIN ({lake.select("truth", f"{table}_truth", first=day, last=day)}) AS t USING (event_id)
            ORDER BY event_us, event_id
        """  # noqa: S608
        return connection.sql(query).to_arrow_table()


def _truth(events: pa.Table, label: str) -> np.ndarray:
    return np.asarray(events[label].to_pylist(), dtype=bool)


def _outcome(
    detector: str, label: str, scores: np.ndarray, is_positive: np.ndarray, *, threshold: float | None
) -> Outcome:
    is_flagged = np.zeros(len(scores), bool) if threshold is None else scores >= threshold
    num_positive, num_benign = int(is_positive.sum()), int((~is_positive).sum())
    found = _share(int((is_flagged & is_positive).sum()), num_positive, is_promised=threshold is not None)
    burdened = _share(int((is_flagged & ~is_positive).sum()), num_benign, is_promised=threshold is not None)
    return Outcome(detector, label, num_positive, *found, num_benign, *burdened)


def _share(part: int, whole: int, *, is_promised: bool) -> tuple[float | None, float | None, float | None]:
    """A share with its exact 95 % Clopper-Pearson interval."""
    from scipy.stats import binomtest

    if not is_promised or whole == 0:
        return None, None, None
    interval = binomtest(part, whole).proportion_ci(0.95, method="exact")
    return part / whole, float(interval.low), float(interval.high)
