"""What a view of features is: measures over windows of the facts about one entity.

A feature is f(entity, t): what the facts say that happened strictly before t. A window of span S with grain G covers
`[floor_G(t - S), t)`: its far edge rests on a multiple of the grain, so that the online state can hold one number per
grain instead of every event, and offline and online stay equal to the last bit. Its near edge is exact. With a grain of
one microsecond (`exact`) the same text gives the plain window `[t - S, t)`.

A fact counts from when it was known. One that reached the lake within two days of happening counts from its own
moment: the service pushes it online at once, and the lake hears of a day the day after. A later one counts from its
arrival. Of an event from a file, which nobody pushed, that is up to two days too early; where its source does not say
when it arrived (`arrived_us`), it counts from its own moment however late the file came.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LATE_US = 2 * DAY  # as in facts_*.sql
MICRO = 1_000_000  # amounts are summed as whole millionths, so that the order of addition does not matter
SQUARE = 100  # and their squares as whole hundredths
VERDICTS = ("verdicts", "frauds", "genuine")  # the kinds of facts that labels are: all of them, and by what they say
# Which tables of the lake a kind of fact is taken from, where it does not bear the table's own name.
_TABLES = {"signups": ("accounts",), **dict.fromkeys(VERDICTS, ("labels", "payments"))}

Kind = Literal["count", "sum", "mean", "distinct", "since", "age", "latest"]


@dataclass(frozen=True)
class Window:
    """How far back a feature looks, and how exactly; each grain divides the next one."""

    name: str
    span_us: int
    grain_us: int

    def start(self, at_us: int) -> int:
        """The first microsecond that the window covers when asked at a moment."""
        edge = at_us - self.span_us
        return edge - edge % self.grain_us


@dataclass(frozen=True)
class Feature:
    """One column: its dtype is int, float or str; a float or str is null where `null` says."""

    name: str
    dtype: Literal["int", "float", "str"]
    meaning: str
    window: Window | None = None
    null: str = "never"
    unit: str = ""


_UNITS = {"since": "seconds", "age": "seconds", "latest": "text"}  # all else counts or says its own


@dataclass(frozen=True)
class Measure:
    """What is taken over the facts of each window; `of` is a column of the facts, divided by `scale` in a mean."""

    kind: Kind
    name: str
    meaning: str
    windows: tuple[Window, ...] = ()
    of: str | None = None
    scale: int = 1
    unit: str = ""

    def features(self) -> Iterator[Feature]:
        """The columns, one per window."""
        dtype: Literal["int", "float", "str"] = "float"
        if self.kind in ("count", "sum", "distinct"):
            dtype = "int"
        if self.kind == "latest":
            dtype = "str"
        null = "never" if dtype == "int" else "nothing known"
        unit = self.unit or _UNITS.get(self.kind, "number")
        if not self.windows:
            yield Feature(self.name, dtype, self.meaning, None, null, unit)
        for window in self.windows:
            yield Feature(f"{self.name}_{window.name}", dtype, self.meaning, window, null, unit)


@dataclass(frozen=True)
class View:
    """Features of one entity over the facts of some tables; `template` is the SQL text that computes them."""

    name: str
    entity: str
    facts: tuple[str, ...]
    measures: tuple[Measure, ...]
    meaning: str = ""
    template: Literal["windows", "profile"] = "windows"

    @property
    def features(self) -> list[Feature]:
        """All columns, in order."""
        return [feature for measure in self.measures for feature in measure.features()]

    @property
    def is_of_verdicts(self) -> bool:
        """Whether it is about verdicts, which become known long after what they judge."""
        return bool(set(VERDICTS) & set(self.facts))

    @property
    def tables(self) -> set[str]:
        """The tables of the lake that its facts are taken from."""
        return {table for kind in self.facts for table in _TABLES.get(kind, (kind,))}

    @property
    def windows(self) -> list[Window]:
        """Each window that is used, shortest first."""
        return sorted({w for m in self.measures for w in m.windows}, key=lambda w: w.span_us)

    @property
    def distincts(self) -> list[tuple[str, Window]]:
        """The columns whose values are told apart, with each window in which they are."""
        return sorted({(m.of, w) for m in self.measures if m.kind == "distinct" and m.of for w in m.windows}, key=str)

    @property
    def reach_us(self) -> int:
        """No fact older than this, seen from the asking moment, can matter; 0: any may."""
        return max((w.span_us + w.grain_us for w in self.windows), default=0)

    @property
    def sums(self) -> list[str]:
        """The columns of the facts that are added up."""
        return sorted({m.of for m in self.measures if m.kind in ("sum", "mean") and m.of})

    @property
    def values(self) -> list[str]:
        """The columns of the facts that are told apart or carried over."""
        return sorted({m.of for m in self.measures if m.kind in ("distinct", "latest") and m.of})


def exact(view: View) -> View:
    """The same view with every far edge exact to the microsecond."""
    measures = (replace(m, windows=tuple(replace(w, grain_us=1) for w in m.windows)) for m in view.measures)
    return replace(view, measures=tuple(measures))
