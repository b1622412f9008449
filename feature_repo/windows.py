"""The declarative table of features: one line adds a window; the SQL text and the online state both follow from it.

A feature is f(entity, t): what the facts say that happened strictly before t. A window of span S with grain G covers
`[floor_G(t - S), t)`: its far edge rests on a multiple of the grain, so that the online state can hold one number per
grain instead of every event, and offline and online stay equal to the last bit. Its near edge is exact. With a grain of
one microsecond (`exact`) the same text gives the plain window `[t - S, t)`.

A fact counts from when it was known. One that reached the lake within a day of happening counts from its own moment
(the service pushes it online at once; the lake hears of it with the next batch); a later one counts from its arrival.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MICRO = 1_000_000  # amounts are summed as whole millionths, so that the order of addition does not matter
SQUARE = 10_000  # and their squares as whole ten-thousandths

TTL_DAYS = 2  # a row is read at its own moment; the longest pause of a view's materialization is a day

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


WINDOWS = {
    "1h": Window("1h", HOUR, MINUTE),
    "1d": Window("1d", DAY, 15 * MINUTE),
    "7d": Window("7d", 7 * DAY, HOUR),
    "30d": Window("30d", 30 * DAY, 6 * HOUR),
}


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


def _over(windows: str) -> tuple[Window, ...]:
    return tuple(WINDOWS[name] for name in windows.split())


def _count(name: str, windows: str, meaning: str) -> Measure:
    return Measure("count", name, meaning, _over(windows))


def _sum(name: str, windows: str, meaning: str, *, of: str, unit: str = "") -> Measure:
    return Measure("sum", name, meaning, _over(windows), of, unit=unit)


def _mean(name: str, windows: str, meaning: str, *, of: str, unit: str, scale: int = 1) -> Measure:
    return Measure("mean", name, meaning, _over(windows), of, scale, unit)


def _distinct(name: str, windows: str, meaning: str, *, of: str) -> Measure:
    return Measure("distinct", name, meaning, _over(windows), of)


VIEWS = {
    view.name: view
    for view in (
        View(
            "account_activity",
            "account_id",
            ("requests",),
            (
                _count("num_requests", "1h 1d 7d", "requests of the account"),
                _sum("num_tokens", "1d 7d", "tokens in its requests", of="num_tokens", unit="tokens"),
                _distinct("num_ips", "1d 7d", "addresses it came from", of="ip"),
                Measure("since", "seconds_since_request", "since its last request, within the longest window"),
            ),
            "how busy an account is",
        ),
        View(
            "account_payments",
            "account_id",
            ("payments",),
            (
                _count("num_payments", "1d 7d 30d", "payments of the account"),
                _mean(
                    "mean_amount", "1d 7d 30d", "their mean amount", of="amount_micros", unit="currency", scale=MICRO
                ),
                _mean(
                    "mean_square",
                    "1d 7d 30d",
                    "the mean square of their amounts",
                    of="amount_square",
                    unit="currency squared",
                    scale=SQUARE,
                ),
                _distinct("num_cards", "1d 7d", "cards it paid with", of="card_id"),
                Measure("since", "seconds_since_payment", "since its last payment, within the longest window"),
            ),
            "what an account pays",
        ),
        View(
            "merchant_risk",
            "merchant_id",
            ("verdicts",),
            (
                _count("num_known", "1d 7d 30d", "fraud verdicts on its payments that became known"),
                _mean("fraud_share", "1d 7d 30d", "share of them that say fraud", of="is_fraud", unit="share"),
            ),
            "what became known about the payments at a merchant",
        ),
        View(
            "merchant_activity",
            "merchant_id",
            ("payments",),
            (
                _count("num_merchant_payments", "1d 7d 30d", "payments at the merchant"),
                _mean(
                    "mean_merchant_amount",
                    "7d 30d",
                    "their mean amount",
                    of="amount_micros",
                    unit="currency",
                    scale=MICRO,
                ),
            ),
            "how busy a merchant is",
        ),
        View(
            "card_activity",
            "card_id",
            ("payments",),
            (
                _count("num_card_payments", "1d 7d", "payments with the card"),
                _distinct("num_card_accounts", "7d", "accounts that paid with it", of="account_id"),
            ),
            "how a card is used",
        ),
        View(
            "account_profile",
            "account_id",
            ("signups",),
            (
                Measure("age", "account_age_s", "seconds since the account signed up"),
                Measure("latest", "plan", "the plan it signed up for", of="plan"),
                Measure("latest", "email_domain", "the domain of its address", of="email_domain"),
            ),
            "what an account said of itself when it signed up; the signup itself counts",
            template="profile",
        ),
        View(
            "ip_activity",
            "ip",
            ("requests", "accounts"),
            (
                _distinct("num_ip_accounts", "1d 7d", "accounts seen at the address", of="account_id"),
                _sum("num_ip_signups", "1d", "accounts that signed up from it", of="is_signup"),
            ),
            "who shares an address",
        ),
        View(
            "device_activity",
            "device_id",
            ("accounts",),
            (_distinct("num_device_accounts", "7d", "accounts seen on the device", of="account_id"),),
            "who shares a device",
        ),
    )
}
ALL = tuple(VIEWS)


@dataclass(frozen=True)
class Service:
    """What a detector may name: the views it reads, and the events at whose moments they are computed. Immutable:
    changed features are a new service."""

    name: str
    events: Literal["requests", "payments", "accounts"]
    views: tuple[str, ...] = field(default=())


SERVICES = {
    service.name: service
    for service in (
        Service("content_v1", "requests", ("account_profile",)),
        Service(
            "payment_v1",
            "payments",
            ("account_payments", "merchant_activity", "merchant_risk", "card_activity", "account_profile"),
        ),
        Service(
            "account_v1",
            "accounts",
            ("account_activity", "account_profile", "ip_activity", "device_activity", "account_payments"),
        ),
    )
}


def definition(service: Service) -> str:
    """What makes a service the one that it is: every measure of every view; words about them may change."""
    said = [
        (view.name, view.entity, view.facts, view.template, [replace(m, meaning="", unit="") for m in view.measures])
        for view in (VIEWS[name] for name in service.views)
    ]
    return hashlib.sha256(repr((service.events, said)).encode()).hexdigest()


def asked_at(view: View) -> list[str]:
    """The event tables at whose moments a view is computed: those of the services that list it."""
    return sorted({service.events for service in SERVICES.values() if view.name in service.views})


def exact(view: View) -> View:
    """The same view with every far edge exact to the microsecond."""
    measures = (replace(m, windows=tuple(replace(w, grain_us=1) for w in m.windows)) for m in view.measures)
    return replace(view, measures=tuple(measures))
