"""At which score a label is found in an event: the sealed thresholds, read for one event's segment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import model_validator

from training.policy import Contract

OTHER = "other"
UNKNOWN = "unknown"


class Condition(Contract):
    """Something about an event or its features; a value that is missing meets none."""

    column: str
    equals: str | bool | None = None
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if (self.equals is None) == (self.at_least is None and self.at_most is None):
            raise ValueError(f"where.{self.column} needs either equals, or at_least and at_most")
        return self

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether an event meets it."""
        value = row.get(self.column)
        if self.equals is not None:
            return bool(value == self.equals)
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
            return False
        low = -math.inf if self.at_least is None else self.at_least
        return low <= value <= (math.inf if self.at_most is None else self.at_most)

    def in_words(self) -> str:
        """The condition as a person reads it."""
        parts = [f"is {self.equals}"] if self.equals is not None else []
        parts += [f"is at least {self.at_least:g}"] if self.at_least is not None else []
        parts += [f"is at most {self.at_most:g}"] if self.at_most is not None else []
        return f"{self.column} {' and '.join(parts)}"


class Move(Contract):
    """Another threshold for a label, for the events that meet every condition: a rule where it is 0 or null."""

    label: str
    threshold: float | None
    where: list[Condition] = []

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"moves.threshold of {self.label!r} is {self.threshold}; it must lie in 0..1 or be null")
        return self

    def meets(self, row: Mapping[str, Any]) -> bool:
        """Whether it is about this event."""
        return all(condition.holds(row) for condition in self.where)

    def in_words(self) -> str:
        """The move as a person reads it."""
        what = "never finds" if self.threshold is None else f"finds from a score of {self.threshold:g} on"
        where = " and ".join(condition.in_words() for condition in self.where) or "whatever the event"
        return f"{self.label}: {what}, where {where}" if self.where else f"{self.label}: {what}, {where}"


class Moves(Contract):
    """A file of moves."""

    moves: list[Move]


@dataclass(frozen=True)
class Cut:
    """The threshold of one label, by segment where its promise is per segment; None where nothing may be flagged."""

    threshold: float | None
    review_from: float | None = None
    per: str | None = None
    segments: Mapping[str, float | None] | None = None
    moves: tuple[Move, ...] = ()

    @classmethod
    def of(cls, sealed: Mapping[str, Any]) -> Self:
        """Read one label of a release's thresholds.json."""
        per, segments = sealed["promise"].get("per"), sealed.get("segments") or {}
        by_segment = {value: one["threshold"] for value, one in segments.items()} if per else None
        return cls(sealed["threshold"], sealed.get("review_from"), per, by_segment)

    def at(self, row: Mapping[str, Any]) -> float | None:
        """The threshold for an event with its features."""
        for move in self.moves:
            if move.meets(row):
                return move.threshold
        if self.per is None or self.segments is None:
            return self.threshold
        return self.segments.get(segment_of(row.get(self.per)), self.segments.get(OTHER))


def segment_of(value: Any) -> str:
    """The value as training names it."""
    if value is None:
        return UNKNOWN
    return str(value).lower() if isinstance(value, bool) else str(value)
