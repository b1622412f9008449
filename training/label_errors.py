"""Verdicts that look wrong, for people to look at again: event ids with a score, and nothing of the event.

Confident learning (Northcutt et al., arXiv 1911.00068) by `cleanlab`, on rows that were not trained on.
"""

import csv
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from training.metrics import Floats
from training.predictions import Predictions

STORED = "label_errors.csv"
_FEWEST_OF_EACH = 10


def write(path: Path, stored: Predictions, probabilities: Floats) -> dict[str, int]:
    """Write the candidates, most suspicious first within a label; return how many each label has."""
    found = {label: _candidates(stored, probabilities, label) for label in stored.labels}
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["label", "event_id", "verdict", "probability", "quality"])
        for label, rows in found.items():
            out.writerows([label, *row] for row in rows)
    return {label: len(rows) for label, rows in found.items()}


def _candidates(stored: Predictions, probabilities: Floats, label: str) -> list[tuple[str, int, str, str]]:
    at = stored.labels.index(label)
    rows = np.flatnonzero(stored.verdicts[:, at] >= 0)
    verdicts = stored.verdicts[rows, at].astype(np.int64)
    if min(verdicts.sum(), len(verdicts) - verdicts.sum()) < _FEWEST_OF_EACH:
        return []
    yes = probabilities[rows, at].astype(np.float64)
    both = np.column_stack([1 - yes, yes])
    suspects = find_label_issues(verdicts, both, return_indices_ranked_by="self_confidence", n_jobs=1)
    quality = get_label_quality_scores(verdicts, both)
    return [(str(stored.event_ids[rows[i]]), int(verdicts[i]), f"{yes[i]:.4f}", f"{quality[i]:.4f}") for i in suspects]
