"""Compares a candidate with the champion on the same test rows, by paired bootstrap."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.detector import DetectorSpec
from training.evaluation import MACRO, Comparison, Difference
from training.measure import MIN_SLICE_ROWS, macro, macro_labels, slice_rows
from training.metrics import Floats, draw_replicates, estimate, replicate
from training.predictions import Predictions
from training.thresholds import Threshold

METRICS = ("average_precision", "recall_at_1pct_fpr", "recall", "benign_fpr")
Replicates = dict[str, Floats]


@dataclass(frozen=True)
class Champion:
    """What the served release answers on the test rows, and where it flags."""

    digest: str
    labels: list[str]
    scores: Floats
    thresholds: dict[str, Threshold]


def compare(
    spec: DetectorSpec, test: Predictions, scores: Floats, *, thresholds: dict[str, Threshold], champion: Champion
) -> Comparison:
    """Differences of the labels that both have: overall, per label and per slice; each flags at its own threshold."""
    pairs = _Pairs(test, scores, thresholds, champion, draw_replicates(int(test.entities.max(initial=-1)) + 1))
    shared = [label for label in spec.labels if label in champion.labels]
    everything = np.ones(len(test.event_us), dtype=bool)
    by_label = {label: pairs.of(label, everything) for label in shared if len(test.known(label))}
    counted = [label for label in macro_labels(spec, test) if label in by_label]
    return Comparison(
        champion=champion.digest,
        differences=[
            *_overall(by_label, counted),
            *_per_label(by_label),
            *_per_slice(pairs, list(by_label), min_positives=spec.gate.min_positives),
        ],
        only_candidate=[label for label in spec.labels if label not in champion.labels],
        only_champion=[label for label in champion.labels if label not in spec.labels],
    )


@dataclass(frozen=True)
class _Pairs:
    """Replicates of both detectors on the same rows with the same draws."""

    test: Predictions
    scores: Floats
    thresholds: dict[str, Threshold]
    champion: Champion
    draws: NDArray[np.uint8]

    def of(self, label: str, rows: NDArray[np.bool_]) -> tuple[Replicates, Replicates]:
        column = self.champion.labels.index(label)
        theirs = np.zeros_like(self.scores)
        theirs[:, self.test.labels.index(label)] = self.champion.scores[:, column]
        known = rows[self.test.known(label)]
        found = []
        for scores, threshold in ((self.scores, self.thresholds[label]), (theirs, self.champion.thresholds[label])):
            sample = self.test.sample(label, scores).where(known)
            at = threshold.cuts({name: of[known] for name, of in self.test.slices_of(label).items()})
            found.append(replicate(sample, self.draws, threshold=at))
        return found[0], found[1]


def _overall(by_label: dict[str, tuple[Replicates, Replicates]], counted: list[str]) -> Iterator[Difference]:
    if counted:
        ours, theirs = ({label: pair[side] for label, pair in by_label.items()} for side in (0, 1))
        yield from _difference(MACRO, "average_precision", macro(ours, counted), champion=macro(theirs, counted))


def _per_label(by_label: dict[str, tuple[Replicates, Replicates]]) -> Iterator[Difference]:
    for label, (ours, theirs) in by_label.items():
        for metric in METRICS:
            if metric in ours and metric in theirs:
                yield from _difference(label, metric, ours[metric], champion=theirs[metric])


def _per_slice(pairs: _Pairs, labels: list[str], *, min_positives: int) -> Iterator[Difference]:
    for column, value, rows in slice_rows(pairs.test):
        for label in labels:
            in_slice = pairs.test.sample(label, pairs.scores).labels[rows[pairs.test.known(label)]]
            if len(in_slice) >= MIN_SLICE_ROWS and in_slice.sum() >= min_positives:
                ours, theirs = (side["average_precision"] for side in pairs.of(label, rows))
                for difference in _difference(label, "average_precision", ours, champion=theirs):
                    yield difference.model_copy(update={"column": column, "value": value})


def _difference(label: str, metric: str, candidate: Floats, *, champion: Floats) -> Iterator[Difference]:
    """One difference, or none where a side cannot be measured."""
    found = estimate(candidate - champion)
    if found is not None:
        yield Difference(
            label=label,
            metric=metric,
            candidate=float(candidate[0]),
            champion=float(champion[0]),
            difference=found,
        )
