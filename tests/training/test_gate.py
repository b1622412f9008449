"""The gate's verdict follows from its criteria, and each says what was held against what."""

import pytest

from tests.training.conftest import behaviour_spec
from training.detector import DetectorSpec
from training.evaluation import Comparison, Difference, Evaluation, LabelEvaluation, Rates
from training.gate import judge
from training.metrics import Estimate
from training.policy import Promise
from training.thresholds import Threshold

PROMISE = Promise(limit=0.01)


def estimate(value: float, margin: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - margin, high=value + margin)


def evaluation_of(**changes: object) -> Evaluation:
    rates = Rates(recall=estimate(0.6), benign_fpr=estimate(0.008), precision=estimate(0.7), flagged_share=None)
    label = LabelEvaluation(num_rows=900, num_positives=90, average_precision=estimate(0.7), at_threshold=rates)
    proved = Threshold(promise=PROMISE, threshold=0.4, bound=0.009, observed=0.005, num_rows=2000)
    fields: dict[str, object] = {
        "detector": "payment_fraud",
        "splits": [],
        "labels": {"fraud": label},
        "macro_labels": ["fraud"],
        "macro_average_precision": estimate(0.7),
        "thresholds": {"fraud": proved},
        "slices": [],
        "comparison": None,
        "bundle_difference": 1e-7,
    }
    return Evaluation.model_validate({**fields, **changes})


@pytest.fixture
def spec() -> DetectorSpec:
    return behaviour_spec().model_copy(update={"labels": ["fraud"], "promises": {"fraud": PROMISE}})


def against_champion(*differences: tuple[str, Estimate]) -> Comparison:
    found = [
        Difference(label=label, metric="average_precision", candidate=0.7, champion=0.7, difference=one)
        for label, one in differences
    ]
    return Comparison(champion="c0ffee", differences=found, only_candidate=[], only_champion=[])


def test_a_sound_candidate_passes(spec: DetectorSpec) -> None:
    verdict = judge(evaluation_of(), spec)

    assert verdict.passed
    assert verdict.reason == "all 4 criteria hold"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"macro_average_precision": estimate(0.4)}, "macro average precision: 0.4 (0.39 to 0.41), limit 0.5"),
        ({"macro_average_precision": None}, "macro average precision: too few labels to measure it"),
        ({"bundle_difference": 0.01}, "the bundle answers what was evaluated: 0.01, limit 0.0001"),
        ({"serving_cost": {"bundle_mb": 900, "event_ms": 2}}, "size of the bundle, MB: 900, limit 500"),
        ({"serving_cost": {"bundle_mb": 9, "event_ms": 70}}, "CPU time of one event, ms: 70, limit 50"),
        (
            {"thresholds": {"fraud": Threshold(promise=PROMISE, reason="12 benign labels")}},
            "is proved: 12 benign labels",
        ),
        (
            {"comparison": against_champion(("macro", estimate(0.0, 0.03)), ("fraud", estimate(0.0)))},
            "macro: average precision against the champion: 0 (-0.03 to 0.03), limit -0.02",
        ),
        (
            {"comparison": against_champion(("macro", estimate(0.0)), ("fraud", estimate(-0.06)))},
            "fraud: average precision against the champion: -0.06",
        ),
        (
            {"comparison": against_champion().model_copy(update={"why": "the training set lacks ['plan']"})},
            "macro: average precision against the champion: the training set lacks ['plan']",
        ),
    ],
)
def test_a_candidate_fails_and_the_reason_names_what_failed(
    spec: DetectorSpec, changes: dict[str, object], reason: str
) -> None:
    verdict = judge(evaluation_of(**changes), spec)

    assert not verdict.passed
    assert reason in verdict.reason


def test_a_promise_that_the_test_split_breaks_fails(spec: DetectorSpec) -> None:
    rates = Rates(recall=estimate(0.6), benign_fpr=estimate(0.05), precision=estimate(0.7), flagged_share=None)
    label = LabelEvaluation(num_rows=900, num_positives=90, at_threshold=rates)

    verdict = judge(evaluation_of(labels={"fraud": label}), spec)

    assert "fraud: benign_fpr is kept on test: 0.05 (0.04 to 0.06), limit 0.01" in verdict.reason


@pytest.mark.parametrize("is_named", [True, False])
def test_of_many_labels_that_nobody_named_one_may_seem_broken_by_chance(spec: DetectorSpec, *, is_named: bool) -> None:
    rates = Rates(recall=estimate(0.6), benign_fpr=estimate(0.016, 0.0055), precision=estimate(0.7), flagged_share=None)
    label = LabelEvaluation(num_rows=900, num_positives=90, average_precision=estimate(0.7), at_threshold=rates)
    names = [f"fraud_{number}" for number in range(11)]
    facts = evaluation_of(
        labels=dict.fromkeys(names, label), thresholds=dict.fromkeys(names, evaluation_of().thresholds["fraud"])
    )
    promised = spec.model_copy(update={"labels": names, "promises": {"fraud_7": PROMISE} if is_named else {}})

    verdict = judge(facts, promised)

    assert verdict.passed != is_named
    assert ("fraud_7: benign_fpr is kept on test" in verdict.reason) == is_named
    assert sum("widened for" in one.rule for one in verdict.criteria) == 11 - is_named


def test_a_promise_nobody_named_may_be_infeasible(spec: DetectorSpec) -> None:
    infeasible = Threshold(promise=PROMISE, reason="12 benign labels")
    unnamed = spec.model_copy(update={"promises": {}})
    label = LabelEvaluation(num_rows=12, num_positives=0)

    verdict = judge(evaluation_of(thresholds={"fraud": infeasible}, labels={"fraud": label}), unnamed)

    assert verdict.passed


def test_one_of_many_slices_may_differ_by_chance(spec: DetectorSpec) -> None:
    parts = [("fraud", estimate(0.0))] * 199
    by_chance = ("fraud", estimate(-0.035, 0.0149))  # 4.6 standard errors from 0 and 2 from the margin

    verdict = judge(evaluation_of(comparison=against_champion(("macro", estimate(0.0)), by_chance, *parts)), spec)

    assert verdict.passed


def test_a_recall_that_is_promised_per_segment_is_proved_in_each(spec: DetectorSpec) -> None:
    promise = Promise(kind="recall", limit=0.5, per="kind")
    found = {n: Threshold(promise=promise, threshold=cut, num_rows=90) for n, cut in (("card", 0.4), ("wire", None))}
    chosen = Threshold(promise=promise, threshold=0.4, bound=0.55, observed=0.6, num_rows=90, segments=found)
    named = spec.model_copy(update={"promises": {"fraud": promise}})

    partly = judge(evaluation_of(thresholds={"fraud": chosen}), named)
    everywhere = {**found, "wire": Threshold(promise=promise, num_rows=0)}
    wholly = judge(evaluation_of(thresholds={"fraud": chosen.model_copy(update={"segments": everywhere})}), named)

    assert (partly.passed, wholly.passed) == (False, True)
    assert "fraud: recall is proved" in partly.reason


@pytest.mark.parametrize(("promised", "is_kept"), [(0.6, True), (0.7, False)])
def test_a_recall_promised_beside_false_alarms_is_held_against_the_test_split(
    spec: DetectorSpec, promised: float, *, is_kept: bool
) -> None:
    promise = Promise(limit=0.01, min_recall=promised)
    chosen = Threshold(promise=promise, threshold=0.4, bound=0.009, observed=0.005, num_rows=2000, recall_bound=0.71)

    verdict = judge(
        evaluation_of(thresholds={"fraud": chosen}), spec.model_copy(update={"promises": {"fraud": promise}})
    )

    assert verdict.passed == is_kept
