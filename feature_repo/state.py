"""The online state of one entity in one view: from it, f(entity, now) is computed exactly as the SQL text does.

Up to its horizon a state holds one number per grain, the last sighting of each value and the last fact; after it, the
facts themselves, by event id. So a fact that is pushed twice counts once, in whatever order facts come; and the next
materialization moves the horizon without losing what was pushed since.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from feature_repo.windows import Measure, View, Window

Fact = Mapping[str, Any]


@dataclass
class State:
    """`grains`: per window, grain start -> [count, *sums]; `seen`: per column, value -> grain of its last sighting."""

    horizon_us: int = 0
    grains: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    seen: dict[str, dict[str, int]] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)  # the last fact: `us`, and for a profile what it said
    tail: dict[str, dict[str, Any]] = field(default_factory=dict)  # event id -> fact after the horizon

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        return cls(**orjson.loads(content))

    def to_bytes(self) -> bytes:
        """The state as the online store holds it."""
        return orjson.dumps(vars(self))

    def push(self, event_id: str, fact: Fact) -> bool:
        """Take in a fact; False where it is known already or lies before the horizon, where the lake answers for it."""
        if fact["us"] < self.horizon_us or event_id in self.tail:
            return False
        self.tail[event_id] = dict(fact)
        return True

    def keep_tail_of(self, older: Self) -> None:
        """Carry over what was pushed after this state's horizon."""
        self.tail |= {key: fact for key, fact in older.tail.items() if fact["us"] >= self.horizon_us}

    def features(self, view: View, at_us: int) -> dict[str, Any]:
        """Every feature of the view at a moment not before the horizon; `facts` strictly before it count."""
        if view.template == "profile":
            return self._profile(view, at_us)
        facts = [fact for fact in self.tail.values() if fact["us"] < at_us]
        row: dict[str, Any] = {}
        for measure in view.measures:
            for feature, window in zip(measure.features(), measure.windows or (view.windows[-1],), strict=True):
                row[feature.name] = self._over(view, measure, window=window, facts=facts, at_us=at_us)
        return row

    def _over(self, view: View, measure: Measure, *, window: Window, facts: Iterable[Fact], at_us: int) -> Any:
        start = window.start(at_us)
        if measure.kind == "since":
            last_us = max([self.latest.get("us", -1), *(f["us"] for f in facts)])
            return (at_us - last_us) / 1_000_000 if last_us >= start else None
        if measure.kind == "distinct":
            return len(self._values(view, str(measure.of), facts=facts, start=start))
        inside = [f for f in facts if f["us"] >= start]
        cells = [cell for grain, cell in self.grains.get(window.name, {}).items() if int(grain) >= start]
        num = len(inside) + sum(cell[0] for cell in cells)
        if measure.kind == "count":
            return num
        at = 1 + view.sums.index(str(measure.of))
        total = sum(f[str(measure.of)] for f in inside) + sum(cell[at] for cell in cells)
        if measure.kind == "sum":
            return total
        return total / (num * measure.scale) if num else None

    def _values(self, view: View, column: str, *, facts: Iterable[Fact], start: int) -> set[str]:
        grain = view.windows[0].grain_us
        values = {value for value, last in self.seen.get(column, {}).items() if last >= start}
        return values | {f[column] for f in facts if f[column] is not None and f["us"] - f["us"] % grain >= start}

    def _profile(self, view: View, at_us: int) -> dict[str, Any]:
        said = [fact for fact in self.tail.values() if fact["us"] <= at_us]
        facts = [self.latest, *said] if self.latest else said
        if not facts:
            return dict.fromkeys((feature.name for feature in view.features), None)
        last_us = max(fact["us"] for fact in facts)
        ages = {m.name: (at_us - last_us) / 1_000_000 for m in view.measures if m.kind == "age"}
        last = [fact for fact in facts if fact["us"] == last_us]
        return ages | {m.name: _smallest(last, str(m.of)) for m in view.measures if m.kind == "latest"}


def _smallest(facts: Iterable[Fact], column: str) -> str | None:
    """Of the facts of one microsecond, as the SQL text takes it: their order must not matter."""
    return min((fact[column] for fact in facts if fact[column] is not None), default=None)
