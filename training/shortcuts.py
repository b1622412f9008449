"""How much of a score could come from where a row is from, rather than from what it says.

A column such as the source of a row often gives its label away. `column_alone` is what a detector would reach that
sees nothing but the column: P(label | value), counted on the training rows. `within` is how well the evaluated detector
ranks the rows of one value among themselves, where the column cannot help.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from training.evaluation import ShortcutEvaluation
from training.metrics import Floats, Sample, draw_replicates, estimate, replicate
from training.predictions import Predictions

_FEWEST_OF_EACH = 10  # violations and benign rows of a value, for its ranking to mean something
_PRIOR_ROWS = 5.0  # of the label's overall share, so that a rare value does not count as certain


def measure_shortcuts(
    trained_on: Predictions, test: Predictions, scores: Floats, *, labels: list[str]
) -> list[ShortcutEvaluation]:
    """One evaluation per column that the training rows have too; `labels` are those of the macro mean."""
    draws = draw_replicates(int(test.entities.max(initial=-1)) + 1)
    columns = [name for name in test.slices if name in trained_on.slices] if labels else []
    return [_measure(name, trained_on, test, scores=scores, labels=labels, draws=draws) for name in columns]


def _measure(
    column: str,
    trained_on: Predictions,
    test: Predictions,
    *,
    scores: Floats,
    labels: list[str],
    draws: NDArray[np.uint8],
) -> ShortcutEvaluation:
    alone = np.zeros_like(scores)
    for label in labels:
        alone[:, test.labels.index(label)] = _share_by_value(column, trained_on, test, label=label)
    found = [replicate(test.sample(label, alone), draws)["average_precision"] for label in labels]
    ranked = [
        auc for label in labels for auc in _within(column, test, test.sample(label, scores), label=label, draws=draws)
    ]
    return ShortcutEvaluation(
        column=column,
        num_values=len(np.unique(test.slices[column].astype(str))),
        column_alone=estimate(np.mean(found, axis=0)),
        within_auc=estimate(np.nanmean(ranked, axis=0)) if ranked else None,
        num_within=len(ranked),
    )


def _share_by_value(column: str, trained_on: Predictions, test: Predictions, *, label: str) -> Floats:
    """P(label | value) of the training rows, for each test row."""
    rows = trained_on.known(label)
    sample = trained_on.sample(label, trained_on.logits)
    values, at = np.unique(trained_on.slices[column][rows].astype(str), return_inverse=True)
    overall = float(np.average(sample.labels, weights=sample.weights)) if len(rows) else 0.0
    hits = np.bincount(at, sample.weights * sample.labels, len(values)) + _PRIOR_ROWS * overall
    shares = hits / (np.bincount(at, sample.weights, len(values)) + _PRIOR_ROWS)
    known = dict(zip(values, shares, strict=True))
    return np.array([known.get(value, overall) for value in test.slices[column].astype(str)])


def _within(
    column: str, test: Predictions, sample: Sample, *, label: str, draws: NDArray[np.uint8]
) -> Iterator[Floats]:
    """The ranking quality within each value that has enough of both kinds, on every replicate."""
    values = test.slices[column][test.known(label)].astype(str)
    for value in np.unique(values):
        part = sample.where(values == value)
        if min(part.labels.sum(), (~part.labels).sum()) >= _FEWEST_OF_EACH and np.ptp(part.clusters):
            yield replicate(part, draws)["auc"]
