"""At which score a label is found in an event: the sealed thresholds, read for one event's segment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

OTHER = "other"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Cut:
    """The threshold of one label, by segment where its promise is per segment; None where nothing may be flagged."""

    threshold: float | None
    review_from: float | None = None
    per: str | None = None
    segments: Mapping[str, float | None] | None = None

    @classmethod
    def of(cls, sealed: Mapping[str, Any]) -> Self:
        """Read one label of a release's thresholds.json."""
        per, segments = sealed["promise"].get("per"), sealed.get("segments") or {}
        by_segment = {value: one["threshold"] for value, one in segments.items()} if per else None
        return cls(sealed["threshold"], sealed.get("review_from"), per, by_segment)

    def at(self, row: Mapping[str, Any]) -> float | None:
        """The threshold for an event with its features."""
        if self.per is None or self.segments is None:
            return self.threshold
        return self.segments.get(_segment(row.get(self.per)), self.segments.get(OTHER))

    def moved(self, threshold: float | None) -> Self:
        """The same label with one threshold for all events, as a hotfix sets it."""
        return replace(self, threshold=threshold, review_from=None, per=None, segments=None)


def _segment(value: Any) -> str:
    """The value as training names it."""
    if value is None:
        return UNKNOWN
    return str(value).lower() if isinstance(value, bool) else str(value)
