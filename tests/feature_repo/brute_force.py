"""Features by plain loops over facts, as the docstring of `windows` defines them: what the SQL text must equal."""

from collections.abc import Mapping, Sequence
from typing import Any

from feature_repo.view import Measure, View, Window

Fact = Mapping[str, Any]


def features(view: View, facts: Sequence[Fact], *, at_us: int, created_us: int) -> dict[str, Any]:
    """One row: the facts are those of one entity, with `us`, `known_us` and the columns of the measures."""
    known = [f for f in facts if f["known_us"] == f["us"] or f["known_us"] <= created_us]
    row: dict[str, Any] = {}
    for measure in view.measures:
        if not measure.windows:
            row[measure.name] = _since(known, view.windows[-1], at_us)
        for window in measure.windows:
            inside = [f for f in known if window.start(at_us) <= f["us"] < at_us]
            row[f"{measure.name}_{window.name}"] = _over(measure, inside)
    return row


def _since(facts: Sequence[Fact], longest: Window, at_us: int) -> float | None:
    past = [f["us"] for f in facts if longest.start(at_us) <= f["us"] < at_us]
    return (at_us - max(past)) / 1_000_000 if past else None


def _over(measure: Measure, inside: Sequence[Fact]) -> Any:
    if measure.kind == "count":
        return len(inside)
    if measure.kind == "distinct":
        return len({f[measure.of] for f in inside if f[measure.of] is not None})
    total = sum(f[measure.of] for f in inside)
    if measure.kind == "sum":
        return total
    return total / (len(inside) * measure.scale) if inside else None
