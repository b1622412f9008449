"""The online state of what an entity says of itself: its last facts, as they were said."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from feature_repo.state import NEVER, TAIL, Fact
from feature_repo.view import View


@dataclass
class Profile:
    """The facts of one entity, oldest first; of those before the horizon only the last moment's matter."""

    horizon_us: int = 0
    facts: list[Fact] = field(default_factory=list)

    def copy(self) -> "Profile":
        """Another one that is moved by itself."""
        return Profile(self.horizon_us, list(self.facts))

    @property
    def last_us(self) -> int:
        """When it last said something."""
        return self.facts[-1].us if self.facts else NEVER

    def holds(self, fact_id: int) -> bool:
        """Whether a fact is among those that are kept."""
        return any(fact.id == fact_id for fact in self.facts)

    def push(self, fact: Fact) -> bool:
        """Take in a fact that is not known yet; False if it lies before the horizon, where the lake answers for it."""
        if fact.us < self.horizon_us:
            return False
        self.facts.append(fact)
        self.facts.sort(key=lambda kept: kept.us)
        del self.facts[:-TAIL]
        return True

    def to_bytes(self) -> tuple[bytes, bytes]:
        """What requests read; the next fact needs no more than that."""
        return orjson.dumps([self.horizon_us, [[f.us, f.id, f.values] for f in self.facts]]), b""

    @classmethod
    def from_bytes(cls, content: bytes | memoryview) -> "Profile":
        """Read what `to_bytes` wrote."""
        horizon_us, facts = orjson.loads(content)
        return cls(horizon_us, [Fact(us, id_, (), tuple(values)) for us, id_, values in facts])

    def at(self, view: View, at_us: int) -> list[Any]:
        """The features of the view; what is said at the very moment counts, so a signup knows itself."""
        said = [fact for fact in self.facts if fact.us <= max(at_us, self.horizon_us)]
        if not said:
            return [None] * len(view.measures)
        last_us = said[-1].us
        last = [fact.values for fact in said if fact.us == last_us]
        return [
            (max(at_us, self.horizon_us) - last_us) / 1_000_000
            if measure.kind == "age"
            else _smallest([values[view.values.index(str(measure.of))] for values in last])
            for measure in view.measures
        ]


def _smallest(values: list[Any]) -> Any:
    """Of the facts of one microsecond, as the SQL text takes it: their order must not matter."""
    return min((value for value in values if value is not None), default=None)
