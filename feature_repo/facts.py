"""The facts that an event is, view by view, as the service sees them; `sql/facts_*.sql` says the same of the lake."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from feature_repo.state import Fact, hash64
from feature_repo.view import DAY, MICRO, SQUARE, VERDICTS, View
from feature_repo.windows import VIEWS

Event = Mapping[str, Any]
VERDICT_WAIT_US = 90 * DAY  # as in facts_verdicts.sql
_SAYS = {"frauds": 1, "genuine": 0}


class Slot(NamedTuple):
    """Where the state of one entity in one view lies."""

    view: str
    key: str


def facts_of(table: str, event: Event) -> Iterator[tuple[Slot, Fact]]:
    """Every fact that an event is; a row of `labels` also needs `merchant_id` and `amount` of its payment."""
    for kind, seen in _kinds(table, event):
        for view in VIEWS.values():
            if kind in view.facts and seen.get(view.entity) is not None:
                yield Slot(view.name, seen[view.entity]), _fact(view, kind, seen)


def fact_id(kind: str, event_id: str, us: int, value: int | None = None) -> int:
    """The id under which a fact counts once. A payment can have several verdicts: each has its moment and its value."""
    if kind in VERDICTS:
        return hash64(f"labels/{event_id}/{us}/{_SAYS.get(kind, value)}")
    return hash64(f"{'accounts' if kind == 'signups' else kind}/{event_id}")


def value_of(view: View, value: str | None) -> Any:
    """A value as states hold it: told apart by its hash, and kept as said only in a profile."""
    return value if value is None or view.template == "profile" else hash64(value)


def _kinds(table: str, event: Event) -> Iterator[tuple[str, dict[str, Any]]]:
    seen = {**event, "us": event["known_us" if table == "labels" else "event_us"], "is_signup": 0}
    if table == "requests":
        yield "requests", seen
    elif table == "payments":
        amount = event["amount"]
        square = int(amount * amount * SQUARE + 0.5)
        yield "payments", {**seen, "amount_micros": _micros(amount), "amount_square": square}
    elif table == "accounts":
        is_signup = event["kind"] == "signup"
        yield "accounts", {**seen, "is_signup": int(is_signup)}
        if is_signup:
            yield "signups", seen
    elif table == "labels" and _is_fraud_verdict(event):
        verdict = {**seen, "is_fraud": event["value"], "amount_micros": _micros(event["amount"])}
        yield "verdicts", verdict
        yield "frauds" if event["value"] else "genuine", verdict


def _is_fraud_verdict(label: Event) -> bool:
    is_in_time = label["known_us"] <= label["event_us"] + VERDICT_WAIT_US
    return label["event_table"] == "payments" and label["label"] == "fraud" and is_in_time


def _micros(amount: float) -> int:
    return int(amount * MICRO + 0.5)


def _fact(view: View, kind: str, seen: Mapping[str, Any]) -> Fact:
    return Fact(
        seen["us"],
        fact_id(kind, seen["event_id"], seen["us"], seen.get("is_fraud")),
        tuple(seen[name] for name in view.sums),
        tuple(value_of(view, seen[name]) for name in view.values),
    )
