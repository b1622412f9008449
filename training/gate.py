"""Judges an evaluation: each criterion with its value, interval, limit and verdict. An override does not exist."""

from collections.abc import Iterator

from scipy.stats import norm

from training.detector import DetectorSpec, Gate
from training.evaluation import (
    MACRO,
    AttackEvaluation,
    Comparison,
    Difference,
    Evaluation,
    ServingCost,
    SuiteEvaluation,
)
from training.metrics import Estimate
from training.policy import Contract
from training.thresholds import Threshold

_MAX_BUNDLE_DIFFERENCE = 1e-4


class Criterion(Contract):
    """One thing a candidate must show; `rule` says in words what is held against the limit."""

    name: str
    rule: str
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float
    passed: bool
    why: str | None = None  # no value could be had


class Verdict(Contract):
    """May this candidate be sealed? `reason` names what failed."""

    passed: bool
    reason: str
    criteria: list[Criterion]


def judge(evaluation: Evaluation, spec: DetectorSpec) -> Verdict:
    """Hold an evaluation against the gate of the detector it was made for."""
    criteria = [_quality(evaluation, spec.gate), _bundle(evaluation)]
    criteria += _cost(evaluation.serving_cost, spec.gate)
    criteria += _promises(evaluation, spec)
    criteria += _attacks(evaluation.attacks, spec.gate)
    criteria += _suites(evaluation.benign_suites, spec.gate)
    if evaluation.comparison is not None:
        criteria += _regressions(evaluation.comparison, spec.gate)
    failed = [criterion for criterion in criteria if not criterion.passed]
    reason = "; ".join(map(_in_words, failed)) or f"all {len(criteria)} criteria hold"
    return Verdict(passed=not failed, reason=reason, criteria=criteria)


def widened(found: Estimate, num_comparisons: int) -> Estimate:
    """The interval that all of several comparisons keep together (Bonferroni, normal tails)."""
    factor = float(norm.isf(0.025 / num_comparisons) / norm.isf(0.025))
    low, high = found.value - factor * (found.value - found.low), found.value + factor * (found.high - found.value)
    return Estimate(value=found.value, low=min(low, found.low), high=max(high, found.high))


def _quality(evaluation: Evaluation, gate: Gate) -> Criterion:
    found, limit = evaluation.macro_average_precision, gate.min_average_precision
    rule = f"the value is at least the limit, over labels with at least {gate.min_positives} positive test rows"
    passed = found is not None and found.value >= limit
    return _criterion("macro average precision", rule, found, limit=limit, passed=passed)


def _bundle(evaluation: Evaluation) -> Criterion:
    return Criterion(
        name="the bundle answers what was evaluated",
        rule="the largest difference of a probability is at most the limit",
        value=evaluation.bundle_difference,
        limit=_MAX_BUNDLE_DIFFERENCE,
        passed=evaluation.bundle_difference <= _MAX_BUNDLE_DIFFERENCE,
    )


def _cost(cost: ServingCost | None, gate: Gate) -> Iterator[Criterion]:
    if cost is not None:
        rule = "the value is at most the limit"
        for name, value, limit in (
            ("size of the bundle, MB", cost.bundle_mb, gate.max_bundle_mb),
            ("CPU time of one event, ms", cost.event_ms, gate.max_event_ms),
        ):
            yield Criterion(name=name, rule=rule, value=value, limit=limit, passed=value <= limit)


def _promises(evaluation: Evaluation, spec: DetectorSpec) -> Iterator[Criterion]:
    """A promise that the detector names must be provable; one that was proved may not be broken by the test split."""
    num_unnamed = len(evaluation.thresholds.keys() - spec.promises.keys())
    for label, chosen in evaluation.thresholds.items():
        promise = chosen.promise
        if label in spec.promises:
            yield Criterion(
                name=f"{label}: {promise.kind} is proved",
                rule=f"the bound at {promise.confidence:.0%} confidence keeps the limit",
                value=chosen.bound,
                limit=promise.limit,
                passed=_is_proved(chosen),
                why=chosen.reason,
            )
        rates = evaluation.labels[label].at_threshold
        found: Estimate | None = getattr(rates, promise.kind) if rates else None
        if found:
            is_fpr = promise.kind == "benign_fpr"
            rule = f"the {'lower' if is_fpr else 'upper'} end does not show that the promise is broken"
            if label not in spec.promises and num_unnamed > 1:  # of many, one seems broken by chance
                found, rule = widened(found, num_unnamed), f"{rule}, widened for {num_unnamed} labels nobody named"
            passed = found.low <= promise.limit if is_fpr else found.high >= promise.limit
            name = f"{label}: {promise.kind} is kept on test"
            yield _criterion(name, rule, found, limit=promise.limit, passed=passed)
        if rates and rates.recall and promise.min_recall is not None:
            rule = "the upper end does not show that the promise is broken"
            passed = rates.recall.high >= promise.min_recall
            name = f"{label}: the recall promised beside it is kept on test"
            yield _criterion(name, rule, rates.recall, limit=promise.min_recall, passed=passed)


def _is_proved(chosen: Threshold) -> bool:
    """In some segment; a promised recall in every one that has rows, as nothing is found where nothing is flagged."""
    if chosen.threshold is None:
        return False
    asks_recall = chosen.promise.kind == "recall" or chosen.promise.min_recall is not None
    return not (asks_recall and any(one.threshold is None and one.num_rows for one in chosen.segments.values()))


def _attacks(attacks: list[AttackEvaluation], gate: Gate) -> Iterator[Criterion]:
    """The worst technique of each kind must leave enough recall; under none may benign twins be shown to suffer."""
    for is_seen, kind, limit in ((True, "seen", gate.min_seen_kept), (False, "held-out", gate.min_unseen_kept)):
        found = [one for one in attacks if one.is_seen == is_seen]
        if found:
            worst = min(found, key=lambda one: one.recall_kept.value if one.recall_kept else -1)
            kept = worst.recall_kept
            rule = "the share of the clean recall is at least the limit"
            name = f"recall kept under the worst {kind} attack: {worst.technique}"
            yield _criterion(name, rule, kept, limit=limit, passed=kept is not None and kept.value >= limit)
    burdens = [(one, widened(one.twin_excess, len(attacks))) for one in attacks if one.twin_excess]
    if burdens:
        worst, excess = max(burdens, key=lambda pair: pair[1].low)
        rule = (
            f"the lower end of the twins' false-positive rate minus {gate.max_twin_ratio:g} times the clean one, "
            f"widened for {len(burdens)} comparisons, is at most the limit"
        )
        name = f"benign twins of attacked texts are spared: {worst.technique}"
        yield _criterion(name, rule, excess, limit=0.0, passed=excess.low <= 0)


def _suites(suites: list[SuiteEvaluation], gate: Gate) -> Iterator[Criterion]:
    """Every suite that the detector names is measured, and its exact upper bound is within the limit."""
    for one in suites:
        limit = gate.benign_suites[one.suite]
        rule = "the upper end of the share of benign texts that are flagged is at most the limit"
        passed = one.flagged is not None and one.flagged.high <= limit
        found = _criterion(f"benign suite {one.suite}", rule, one.flagged, limit=limit, passed=passed)
        yield found.model_copy(update={"why": one.why})


def _regressions(comparison: Comparison, gate: Gate) -> Iterator[Criterion]:
    """Overall the candidate must be shown not to be worse; no label or slice may be shown to be worse."""
    if comparison.why is not None:
        rule = "the champion can be asked about the same test rows"
        name = f"{MACRO}: average precision against the champion"
        unknown = _criterion(name, rule, None, limit=-gate.max_regression, passed=False)
        yield unknown.model_copy(update={"why": comparison.why})
    compared = [one for one in comparison.differences if one.metric == "average_precision"]
    num_parts = sum(one.label != MACRO for one in compared)
    for one in compared:
        found, limit = one.difference, -gate.max_regression
        if one.label == MACRO:
            rule = "the lower end of the paired interval is at least the limit"
            yield _criterion(_name(one), rule, found, limit=limit, passed=found.low >= limit)
        else:
            found = widened(found, num_parts)
            rule = f"the upper end of the paired interval, widened for {num_parts} comparisons, is at least the limit"
            yield _criterion(_name(one), rule, found, limit=limit, passed=found.high >= limit)


def _name(one: Difference) -> str:
    where = f" where {one.column} is {one.value}" if one.column else ""
    return f"{one.label}: average precision against the champion{where}"


def _criterion(name: str, rule: str, found: Estimate | None, *, limit: float, passed: bool) -> Criterion:
    value, low, high = (found.value, found.low, found.high) if found else (None, None, None)
    return Criterion(name=name, rule=rule, value=value, low=low, high=high, limit=limit, passed=passed)


def _in_words(failed: Criterion) -> str:
    if failed.why or failed.value is None:
        return f"{failed.name}: {failed.why or 'too few labels to measure it'}"
    interval = f" ({failed.low:.4g} to {failed.high:.4g})" if failed.low is not None else ""
    return f"{failed.name}: {failed.value:.4g}{interval}, limit {failed.limit:.4g}"
