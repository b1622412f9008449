"""Turns logits into probabilities: Platt scaling per label, fitted on `validation`.

Not on `calibration`: thresholds are proved there, and a proof needs scores that never saw its rows.
"""

from pathlib import Path

import numpy as np
import orjson
from sklearn.linear_model import LogisticRegression

from training.metrics import Floats, Sample
from training.policy import Contract
from training.predictions import Predictions

_MIN_OF_EACH = 10  # below this a fitted slope says more about chance than about the network


class Platt(Contract):
    """probability = sigmoid(a * logit + b), with a > 0: calibration never changes the order of two rows."""

    a: float = 1.0
    b: float = 0.0

    def probabilities(self, logits: Floats) -> Floats:
        """Calibrated probabilities, float32 as the scorer answers them."""
        return (1 / (1 + np.exp(-np.clip(self.log_odds(logits), -80, 80)))).astype(np.float32)

    def log_odds(self, logits: Floats) -> Floats:
        """Calibrated log-odds, float64."""
        return self.a * logits.astype(np.float64) + self.b


def fit(logits: Sample) -> Platt:
    """Fit one label; `logits.scores` are raw logits. Targets are smoothed as in Platt (1999), so that a separable
    sample keeps a finite slope. The identity where there is too little to learn from, or the order would turn around.
    """
    num_positives = int(logits.labels.sum())
    num_benign = len(logits.labels) - num_positives
    if min(num_positives, num_benign) < _MIN_OF_EACH:
        return Platt()
    targets = np.where(logits.labels, (num_positives + 1) / (num_positives + 2), 1 / (num_benign + 2))
    rows, is_violation = np.tile(logits.scores[:, None], (2, 1)), np.repeat([True, False], len(targets))
    weights = np.concatenate([targets, 1 - targets]) * np.tile(logits.weights / logits.weights.mean(), 2)
    model = LogisticRegression(C=np.inf, max_iter=1000).fit(rows, is_violation, sample_weight=weights)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Platt(a=slope, b=intercept) if slope > 0 else Platt()


def fit_all(validation: Predictions) -> dict[str, Platt]:
    """Fit every label on the rows whose verdict is known."""
    return {label: fit(validation.sample(label, validation.logits)) for label in validation.labels}


def probabilities(predictions: Predictions, platt: dict[str, Platt]) -> Floats:
    """Calibrated probabilities [N, L] of stored logits."""
    columns = [platt[label].probabilities(predictions.logits[:, i]) for i, label in enumerate(predictions.labels)]
    return np.column_stack(columns)


def write(path: Path, platt: dict[str, Platt]) -> None:
    """Write what the scorer reads: [a, b] of each label."""
    content = {label: [one.a, one.b] for label, one in platt.items()}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
