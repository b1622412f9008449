"""What an evaluation card says, before it is laid out: the sentences and the order of what an approver reads first."""

from collections.abc import Iterator
from typing import Any

from training.detector import DetectorSpec
from training.evaluation import MACRO, AttackEvaluation, Difference, Evaluation, SliceEvaluation
from training.gate import Verdict, widened
from training.metrics import Estimate
from training.policy import Contract
from training.thresholds import Threshold

_NUM_WORST_SLICES = 10


class Cost(Contract):
    """What one label's threshold finds and what it costs."""

    label: str
    burden: Estimate
    recall: Estimate | None


class Tile(Contract):
    """One headline number: its name, the value and what it is held against."""

    name: str
    value: str
    note: str
    is_bad: bool = False


def facts_of(spec: DetectorSpec, evaluation: Evaluation, verdict: Verdict) -> dict[str, Any]:
    """What both templates show."""
    shown = held_at_once(evaluation.comparison.differences if evaluation.comparison else [])
    return {
        "spec": spec,
        "evaluation": evaluation,
        "verdict": verdict,
        "failed": [one for one in verdict.criteria if not one.passed],
        "tiles": list(_tiles(spec, evaluation, verdict)),
        "promises": list(_promises(evaluation)),
        "costs": list(_costs(spec, evaluation)),
        "better": [_sentence(one) for one in shown if _gain(one).low > 0],
        "worse": [_sentence(one) for one in shown if _gain(one).high < 0],
        "num_compared": sum(one.label != MACRO for one in shown),
        "macro_difference": next((one for one in shown if one.label == MACRO), None),
        "worst_slices": _worst_slices(evaluation),
        "attacks": sorted(evaluation.attacks, key=lambda one: (not one.is_seen, _kept(one))),
        "confusions": list(_confusions(evaluation)),
        "num_label_errors": sum(evaluation.label_errors.values()),
    }


def _tiles(spec: DetectorSpec, evaluation: Evaluation, verdict: Verdict) -> Iterator[Tile]:
    macro, burden = evaluation.macro_average_precision, evaluation.benign_burden
    failed = {one.name for one in verdict.criteria if not one.passed}
    if macro:
        counted, limit = f"{len(evaluation.macro_labels)} of {len(spec.labels)}", spec.gate.min_average_precision
        note = f"mean over {counted} labels; at least {limit:g}"
        is_bad = "macro average precision" in failed
        yield Tile(name="average precision", value=f"{macro.value:.3f}", note=note, is_bad=is_bad)
    if burden:
        low, high = (round(10_000 * end) for end in (burden.low, burden.high))
        note = f"{low:,} to {high:,}; by any label"
        yield Tile(name="flagged of 10,000 benign", value=f"{10_000 * burden.value:,.0f}", note=note)
    yield _proof_tile(evaluation.thresholds)
    yield from _attack_tiles(spec, evaluation, failed)
    if suites := [one for one in evaluation.benign_suites if one.flagged]:
        worst = max(suites, key=lambda one: one.num_flagged / one.num_texts)
        is_bad = any(name.startswith("benign suite") for name in failed)
        share = f"{100 * worst.num_flagged / worst.num_texts:.1f} %"
        yield Tile(name="worst benign suite flagged", value=share, note=worst.suite, is_bad=is_bad)


def _proof_tile(thresholds: dict[str, Threshold]) -> Tile:
    """A label counts where it is proved in every segment."""
    proved = {name: [one.threshold is not None for _, one in found.parts] for name, found in thresholds.items()}
    partly = [f"{name}: {sum(are)} of {len(are)} segments" for name, are in proved.items() if any(are) and not all(are)]
    num_whole = sum(map(all, proved.values()))
    notes = [*partly, "the others are scored and never flagged"] if num_whole < len(proved) else ["every label can act"]
    return Tile(name="promises proved", value=f"{num_whole} of {len(proved)}", note="; ".join(notes))


def _attack_tiles(spec: DetectorSpec, evaluation: Evaluation, failed: set[str]) -> Iterator[Tile]:
    """What attacks leave of the recall, never without what they do to benign twins."""
    for is_seen, name, limit in (
        (True, "kept under known attacks", spec.gate.min_seen_kept),
        (False, "kept under held-out attacks", spec.gate.min_unseen_kept),
    ):
        if found := [one for one in evaluation.attacks if one.is_seen == is_seen]:
            worst = min(found, key=_kept)
            twins = f"; {10_000 * worst.twin_fpr.value:,.0f} of 10,000 twins flagged" if worst.twin_fpr else ""
            note = f"of the recall, worst: {worst.technique}; at least {100 * limit:.0f} %{twins}"
            yield Tile(name=name, value=f"{100 * max(0.0, _kept(worst)):.0f} %", note=note, is_bad=_kept(worst) < limit)
    if twins_found := [one for one in evaluation.attacks if one.twin_fpr and one.twin_excess]:
        worst = max(twins_found, key=lambda one: one.twin_excess.low if one.twin_excess else 0.0)
        assert worst.twin_fpr is not None
        clean = 10_000 * worst.twin_fpr_clean.value if worst.twin_fpr_clean else 0.0
        note = f"of 10,000, worst: {worst.technique}; {clean:,.0f} of them clean"
        yield Tile(
            name="benign twins flagged under attack",
            value=f"{10_000 * worst.twin_fpr.value:,.0f}",
            note=note,
            is_bad=any(name.startswith("benign twins") for name in failed),
        )


def _kept(one: AttackEvaluation) -> float:
    return one.recall_kept.value if one.recall_kept else -1.0


def _promises(evaluation: Evaluation) -> Iterator[tuple[str, Threshold]]:
    """What was proved and what not, each segment by itself."""
    for label, found in evaluation.thresholds.items():
        for segment, one in found.parts:
            yield f"{label} where {found.promise.per} is {segment}" if segment is not None else label, one


def _costs(spec: DetectorSpec, evaluation: Evaluation) -> Iterator[Cost]:
    """Labels that can flag, the most burdensome first."""
    found = []
    for label in spec.labels:
        rates = evaluation.labels[label].at_threshold
        if rates is not None and rates.benign_fpr is not None:
            found.append(Cost(label=label, burden=rates.benign_fpr, recall=rates.recall))
    yield from sorted(found, key=lambda one: -one.burden.value)


def held_at_once(differences: list[Difference]) -> list[Difference]:
    """With the intervals that all labels and slices keep at once; the macro stands alone and keeps its own."""
    num_parts = sum(one.label != MACRO for one in differences)
    return [
        one if one.label == MACRO else one.model_copy(update={"difference": widened(one.difference, num_parts)})
        for one in differences
    ]


def _gain(one: Difference) -> Estimate:
    """The difference where more is better: a false-positive rate is turned around."""
    found = one.difference
    return found if one.metric != "benign_fpr" else Estimate(value=-found.value, low=-found.high, high=-found.low)


def _sentence(one: Difference) -> str:
    where = f" where {one.column} is {one.value}" if one.column else ""
    metric = one.metric.replace("_", " ").replace("1pct fpr", "1 % benign FPR").replace("fpr", "FPR")
    found = one.difference
    ends = f"{found.value:+.3f}, {found.low:+.3f} to {found.high:+.3f}"
    return f"{one.label}{where}: {metric} {one.champion:.3f} to {one.candidate:.3f} ({ends})"


def _worst_slices(evaluation: Evaluation) -> list[SliceEvaluation]:
    """The slices that lie furthest below their label's own average precision."""

    def below(one: SliceEvaluation) -> float:
        whole = evaluation.labels[one.label].average_precision
        assert one.average_precision is not None
        assert whole is not None
        return one.average_precision.value - whole.value

    return sorted((one for one in evaluation.slices if one.average_precision), key=below)[:_NUM_WORST_SLICES]


def _confusions(evaluation: Evaluation) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Of each label's violations: what they are flagged as most often, in falling order."""
    if evaluation.confusion is None:
        return
    for label, shares in evaluation.confusion.shares.items():
        most = sorted(shares.items(), key=lambda pair: -pair[1])[:4]
        yield label, evaluation.confusion.num_rows[label], {name: share for name, share in most if share > 0}
