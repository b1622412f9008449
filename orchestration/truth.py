"""What a day's answers were worth, by the world's truth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from orchestration.live_day import Answered

Share = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Outcome:
    """What one label found and whom it burdened, with 95 % intervals; null where no threshold keeps the promise."""

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


def judge(
    detector: str, answers: Iterable[Answered], *, labels: Sequence[str], promised: Sequence[str]
) -> list[Outcome]:
    """One outcome per label of a detector; `promised` are the labels whose threshold was proved."""
    mine = [answered for answered in answers if answered.detector == detector]
    return [_outcome(detector, label, mine, is_promised=label in promised) for label in labels]


def _outcome(detector: str, label: str, answers: Sequence[Answered], *, is_promised: bool) -> Outcome:
    found = [label in a.labels for a in answers if a.truth[label] == 1]
    burdened = [label in a.labels for a in answers if a.truth[label] == 0]
    return Outcome(
        detector,
        label,
        len(found),
        *_share(sum(found), len(found), is_promised=is_promised),
        len(burdened),
        *_share(sum(burdened), len(burdened), is_promised=is_promised),
    )


def _share(part: int, whole: int, *, is_promised: bool) -> Share:
    """A share with its exact 95 % Clopper-Pearson interval."""
    from scipy.stats import binomtest

    if not is_promised or whole == 0:
        return None, None, None
    interval = binomtest(part, whole).proportion_ci(0.95, method="exact")
    return part / whole, float(interval.low), float(interval.high)


def to_table(outcomes: Sequence[Outcome]) -> Table:
    """The outcomes for people."""
    table = Table(title="what the service answered, against the world's truth (95 % intervals in brackets)")
    for column in ("detector", "label", "violating", "found", "benign", "flagged"):
        table.add_column(column, justify="left" if column in ("detector", "label") else "right", no_wrap=True)
    for o in outcomes:
        recall, burden = _percent(o.recall, o.recall_low, o.recall_high), _percent(o.fpr, o.fpr_low, o.fpr_high)
        table.add_row(o.detector, o.label, f"{o.num_positive:,}", recall, f"{o.num_benign:,}", burden)
    return table


def _percent(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "not promised"
    return f"{value:.1%} ({100 * low:.1f}-{100 * high:.1f})"
