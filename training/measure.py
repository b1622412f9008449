"""Measures scores on the test split: every label, every slice, each number with its interval."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from training.detector import DetectorSpec
from training.evaluation import (
    Comparison,
    Evaluation,
    LabelEvaluation,
    Rates,
    SliceEvaluation,
    SplitSummary,
)
from training.metrics import (
    Estimate,
    Floats,
    Sample,
    card_precision,
    draw_replicates,
    estimate,
    estimate_over_days,
    estimate_rate,
    replicate,
)
from training.predictions import Predictions
from training.score_bins import ScoreBins
from training.thresholds import Threshold

_DAY_US = 86_400_000_000
Rows = NDArray[np.intp]
MIN_SLICE_ROWS = 50  # smaller groups show noise, and may show persons
MAX_SLICE_VALUES = 12


def measure(
    spec: DetectorSpec,
    test: Predictions,
    scores: Floats,
    *,
    thresholds: dict[str, Threshold],
    splits: list[SplitSummary],
    comparison: Comparison | None,
    bundle_difference: float,
) -> Evaluation:
    """Everything that gate and card need; `scores` are the calibrated probabilities of the test split [N, L]."""
    draws = draw_replicates(int(test.entities.max(initial=-1)) + 1)
    replicates = replicate_labels(test, scores, draws=draws, thresholds=thresholds)
    counted = macro_labels(spec, test)
    return Evaluation(
        detector=spec.name,
        splits=splits,
        labels={
            label: _label(
                test,
                test.sample(label, scores),
                replicates[label],
                threshold=thresholds[label].cuts(test.slices_of(label)),
                card_rows=test.known(label) if spec.events == "payments" else None,
            )
            for label in spec.labels
        },
        macro_labels=counted,
        macro_average_precision=estimate(macro(replicates, counted)) if counted else None,
        thresholds=thresholds,
        slices=list(_slices(test, scores, draws, thresholds)),
        comparison=comparison,
        bundle_difference=bundle_difference,
    )


def replicate_labels(
    test: Predictions, scores: Floats, *, draws: NDArray[np.uint8], thresholds: dict[str, Threshold]
) -> dict[str, dict[str, Floats]]:
    """Every metric of every label on every replicate; a label without rows has none."""
    found = {}
    for label in test.labels:
        sample = test.sample(label, scores)
        at = thresholds[label].cuts(test.slices_of(label))
        found[label] = replicate(sample, draws, threshold=at) if len(sample.scores) else {}
    return found


def macro_labels(spec: DetectorSpec, test: Predictions) -> list[str]:
    """The labels with enough positive test rows to be averaged."""
    return [label for label in spec.labels if _num_positives(test, label) >= spec.gate.min_positives]


def macro(replicates: dict[str, dict[str, Floats]], labels: list[str]) -> Floats:
    """The mean average precision of some labels on every replicate."""
    return np.mean([replicates[label]["average_precision"] for label in labels], axis=0)


def summarize(split: str, rows: Predictions, *, num_near_duplicates: int) -> SplitSummary:
    """Count what a split holds."""
    return SplitSummary(
        split=split,
        num_rows=len(rows.event_us),
        num_entities=len(np.unique(rows.entities)),
        first_us=int(rows.event_us.min(initial=np.iinfo(np.int64).max)) if len(rows.event_us) else 0,
        last_us=int(rows.event_us.max(initial=0)),
        num_known={label: len(rows.known(label)) for label in rows.labels},
        num_positives={label: _num_positives(rows, label) for label in rows.labels},
        num_near_duplicates=num_near_duplicates,
        num_not_sampled=int((rows.weights == 0).sum()),
    )


def slice_rows(test: Predictions) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Column, value and rows of each slice that is large enough, largest first."""
    for column, values in test.slices.items():
        names, counts = np.unique(values.astype(str), return_counts=True)
        for i in np.argsort(-counts, kind="stable")[:MAX_SLICE_VALUES]:
            if counts[i] >= MIN_SLICE_ROWS:
                yield column, str(names[i]), values == names[i]


def describe(
    sample: Sample, values: dict[str, Floats], *, threshold: Floats | float | None
) -> dict[str, Estimate | Rates | int | None]:
    """Counts and estimates of one sample from its replicates, which were made with this threshold."""
    facts: dict[str, Estimate | Rates | int | None] = {
        "num_rows": len(sample.scores),
        "num_positives": int(sample.labels.sum()),
    }
    for name in ("average_precision", "auc", "recall_at_1pct_fpr", "recall_at_01pct_fpr", "brier"):
        facts[name] = estimate(values[name])
    facts["ece"] = estimate(values["ece"], is_biased=True)
    if threshold is not None:
        facts["at_threshold"] = _rates(sample, values, flagged=sample.scores >= threshold)
    return facts


def _rates(sample: Sample, values: dict[str, Floats], *, flagged: NDArray[np.bool_]) -> Rates:
    return Rates(
        recall=estimate_rate(values["recall"], sample.weights[sample.labels]),
        benign_fpr=estimate_rate(values["benign_fpr"], sample.weights[~sample.labels]),
        precision=estimate_rate(values["precision"], sample.weights[flagged]),
        flagged_share=estimate_rate(values["flagged_share"], sample.weights),
    )


def _label(
    test: Predictions,
    sample: Sample,
    values: dict[str, Floats],
    *,
    threshold: Floats | float | None,
    card_rows: Rows | None,
) -> LabelEvaluation:
    if not values:
        return LabelEvaluation(num_rows=0, num_positives=0)
    facts = {**describe(sample, values, threshold=threshold), "scores": ScoreBins.of(sample.scores, sample.weights)}
    if card_rows is not None:
        facts["card_precision"] = _card_precision(test, sample, card_rows)
    return LabelEvaluation.model_validate(facts)


def _slices(
    test: Predictions, scores: Floats, draws: NDArray[np.uint8], thresholds: dict[str, Threshold]
) -> Iterator[SliceEvaluation]:
    for column, value, rows in slice_rows(test):
        for label in test.labels:
            known = rows[test.known(label)]
            sample = test.sample(label, scores).where(known)
            if len(sample.scores) >= MIN_SLICE_ROWS:
                at = thresholds[label].cuts({name: of[known] for name, of in test.slices_of(label).items()})
                facts = describe(sample, replicate(sample, draws, threshold=at), threshold=at)
                yield SliceEvaluation.model_validate({"label": label, "column": column, "value": value, **facts})


def _card_precision(test: Predictions, sample: Sample, rows: Rows) -> Estimate | None:
    days = test.event_us[rows] // _DAY_US
    return estimate_over_days(card_precision(days, test.cards[rows], sample.scores, labels=sample.labels))


def _num_positives(rows: Predictions, label: str) -> int:
    return int((rows.verdicts[rows.known(label), rows.labels.index(label)] == 1).sum())
