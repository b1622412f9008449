"""Every feature by brute force in plain Python: no SQL, no prefix sums, one loop over all facts per cell."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from feature_repo.view import DAY, LATE_US, Measure, View, Window
from feature_repo.windows import asked_at

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


def facts_of(view: View, tables: Tables) -> list[dict[str, Any]]:
    """The facts of a view, with the moment since which each is known."""
    return [fact for kind in view.facts for fact in _FACTS[kind](tables) if fact[view.entity] is not None]


def _seen(row: Row) -> dict[str, Any]:
    is_late = row["arrived_us"] > row["event_us"] + LATE_US
    return {**row, "us": row["event_us"], "known_us": row["arrived_us"] if is_late else row["event_us"]}


def _payments(tables: Tables) -> Iterator[dict[str, Any]]:
    for row in tables["payments"]:
        yield {
            **_seen(row),
            "amount_micros": round(row["amount"] * 1_000_000),
            "amount_square": round(row["amount"] ** 2 * 100),
        }


def _verdicts(tables: Tables) -> Iterator[dict[str, Any]]:
    said_before = set()
    for label in tables["labels"]:
        if label["event_table"] != "payments" or label["label"] != "fraud":
            continue
        for payment in tables["payments"]:
            if payment["event_id"] == label["event_id"] and label["known_us"] <= label["event_us"] + 90 * DAY:
                known_us = label["known_us"]
                amount = round(payment["amount"] * 1_000_000)
                said = {"is_fraud": label["value"], "amount_micros": amount}
                if (of := (payment["event_id"], known_us, label["value"])) in said_before:
                    continue
                said_before.add(of)
                yield {**payment, "us": known_us, "known_us": max(known_us, _seen(payment)["known_us"]), **said}


_FACTS = {
    "requests": lambda tables: ({**_seen(r), "is_signup": 0} for r in tables["requests"]),
    "payments": _payments,
    "accounts": lambda tables: ({**_seen(r), "is_signup": int(r["kind"] == "signup")} for r in tables["accounts"]),
    "signups": lambda tables: (_seen(r) for r in tables["accounts"] if r["kind"] == "signup"),
    "verdicts": _verdicts,
    "frauds": lambda tables: (verdict for verdict in _verdicts(tables) if verdict["is_fraud"]),
    "genuine": lambda tables: (verdict for verdict in _verdicts(tables) if not verdict["is_fraud"]),
}


def rows_of(view: View, tables: Tables) -> dict[tuple[str, int, int], dict[str, Any]]:
    """All feature rows: (entity, moment, known since) to values."""
    facts = facts_of(view, tables)
    moments = {
        (row[view.entity], row["event_us"])
        for table in asked_at(view)
        for row in tables[table]
        if row[view.entity] is not None
    }
    return {
        (entity, at_us, created): values_of(view, facts, entity, at_us, created=created)
        for entity, at_us in moments
        for created in {at_us, *_late(view, facts, entity, at_us)}
    }


def _late(view: View, facts: Sequence[Row], entity: str, at_us: int) -> set[int]:
    return {
        f["known_us"]
        for f in facts
        if f[view.entity] == entity and f["known_us"] > max(f["us"], at_us) and _is_past(view, f["us"], at_us)
    }


def _is_past(view: View, us: int, at_us: int) -> bool:
    if view.template == "profile":
        return us <= at_us
    return view.windows[-1].start(at_us) <= us < at_us


def values_of(view: View, facts: Sequence[Row], entity: str, at_us: int, *, created: int) -> dict[str, Any]:
    """The features of one entity at one moment, by what was known at `created`."""
    past = [
        f for f in facts
        if f[view.entity] == entity and f["known_us"] <= created and _is_past(view, f["us"], at_us)
    ]  # fmt: skip
    if view.template == "profile":
        return _profile(view, past, at_us)
    values: dict[str, Any] = {}
    for measure in view.measures:
        if measure.kind == "since":
            last = max((f["us"] for f in past), default=None)
            values[measure.name] = None if last is None else (at_us - last) / 1_000_000
        for window in measure.windows:
            values[f"{measure.name}_{window.name}"] = _measured(measure, past, window, at_us)
    return values


def _measured(measure: Measure, past: Sequence[Row], window: Window, at_us: int) -> float | int | None:
    inside = [f for f in past if f["us"] >= window.start(at_us)]
    if measure.kind == "count":
        return len(inside)
    taken = [f[measure.of] for f in inside]
    if measure.kind == "distinct":
        return len({value for value in taken if value is not None})
    if measure.kind == "sum":
        return sum(taken)
    return sum(taken) / (len(taken) * measure.scale) if taken else None


def _profile(view: View, past: Sequence[Row], at_us: int) -> dict[str, Any]:
    last = max((f["us"] for f in past), default=None)
    said = [f for f in past if f["us"] == last]
    values: dict[str, Any] = {}
    for measure in view.measures:
        if measure.kind == "age":
            values[measure.name] = None if last is None else (at_us - last) / 1_000_000
        else:
            values[measure.name] = min((f[measure.of] for f in said if f[measure.of] is not None), default=None)
    return values
