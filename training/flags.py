"""What is flagged over all labels together, at the released thresholds: whom it burdens, and what is taken for what."""

import numpy as np
from numpy.typing import NDArray

from training.evaluation import Confusion
from training.metrics import Estimate, Floats, draw_replicates, drawn_weights, estimate_rate
from training.predictions import Predictions
from training.thresholds import Threshold

NOTHING = "nothing"


def flagged_by_label(
    test: Predictions, scores: Floats, thresholds: dict[str, Threshold]
) -> dict[str, NDArray[np.bool_]]:
    """The rows that each label flags; a label without a threshold flags nothing, and is left out."""
    flags = scores >= cuts_of(test, thresholds)
    named = [label for label in test.labels if thresholds[label].threshold is not None]
    return {label: flags[:, test.labels.index(label)] for label in named}


def cuts_of(test: Predictions, thresholds: dict[str, Threshold]) -> Floats:
    """From which score on each row is flagged as each label, in its segment [N, L]; infinite where it never is."""
    cuts_NL = np.full((len(test.event_ids), len(test.labels)), np.inf)
    for at, label in enumerate(test.labels):
        cut = thresholds[label].cuts(test.slices)
        if cut is not None:
            cuts_NL[:, at] = cut
    return cuts_NL


def burden(test: Predictions, scores: Floats, *, thresholds: dict[str, Threshold]) -> Estimate | None:
    """Of the rows that are not known to break any rule, the share that is flagged by a label known not to be true."""
    flagged = flagged_by_label(test, scores, thresholds)
    if not flagged:
        return None
    at = [test.labels.index(label) for label in flagged]
    is_false = test.verdicts[:, at] == 0
    rows = np.flatnonzero((test.weights > 0) & (test.verdicts != 1).all(axis=1) & is_false.any(axis=1))
    hits = (np.column_stack(list(flagged.values())) & is_false).any(axis=1)[rows]
    draws_RC = draw_replicates(int(test.entities.max(initial=-1)) + 1)
    drawn = drawn_weights(test.weights[rows], test.entities[rows], draws_RC)
    part, whole = np.hstack([(weights_RN @ hits, weights_RN.sum(axis=1)) for weights_RN in drawn])
    shares = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return estimate_rate(shares, test.weights[rows]) if len(rows) else None


def confuse(test: Predictions, scores: Floats, *, thresholds: dict[str, Threshold]) -> Confusion | None:
    """Of the rows that truly have a label, the share flagged as each; None where nothing can be flagged."""
    flagged = flagged_by_label(test, scores, thresholds)
    if not flagged:
        return None
    flagged[NOTHING] = ~np.any(list(flagged.values()), axis=0)
    shares, num_rows = {}, {}
    for label in test.labels:
        rows = test.known(label)
        rows = rows[test.verdicts[rows, test.labels.index(label)] == 1]
        if len(rows):
            weights = test.label_weights[rows, test.labels.index(label)]
            shares[label] = {name: float(np.average(flags[rows], weights=weights)) for name, flags in flagged.items()}
            num_rows[label] = len(rows)
    return Confusion(shares=shares, num_rows=num_rows)
