"""What a day's answers were worth, by the world's truth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.box import SIMPLE
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
    """The outcomes for people, in 80 columns."""
    table = Table(title="what was answered, against the world's truth (95 % intervals)", box=SIMPLE)
    for column in ("label", "violating", "found", "benign", "flagged"):
        table.add_column(column, justify="left" if column == "label" else "right", no_wrap=True)
    for detector, some in groupby(outcomes, key=lambda o: o.detector):
        table.add_row(f"[bold]{detector}[/]")
        for o in some:
            recall = _percent(o.recall, o.recall_low, o.recall_high, digits=0)
            burden = _percent(o.fpr, o.fpr_low, o.fpr_high, digits=1)
            table.add_row(f"  {o.label}", f"{o.num_positive:,}", recall, f"{o.num_benign:,}", burden)
        table.add_section()
    return table


def _percent(value: float | None, low: float | None, high: float | None, *, digits: int) -> str:
    if value is None or low is None or high is None:
        return "not promised"
    return f"{value:.{digits}%} ({100 * low:.{digits}f}-{100 * high:.{digits}f})"
