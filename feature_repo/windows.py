"""The declarative table of features: one line adds a window; the SQL text and the online state both follow from it."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal

from feature_repo.view import DAY, HOUR, MICRO, MINUTE, SQUARE, Measure, View, Window

TTL_DAYS = 2  # a row is read at its own moment; the longest pause of a view's materialization is a day

WINDOWS = {
    "1h": Window("1h", HOUR, MINUTE),
    "1d": Window("1d", DAY, 15 * MINUTE),
    "7d": Window("7d", 7 * DAY, HOUR),
    "30d": Window("30d", 30 * DAY, 6 * HOUR),
}


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
                _count("num_known", "1d 7d 30d", "verdicts on its payments that became known, each one counted"),
                _mean("fraud_share", "1d 7d 30d", "share of them that say fraud", of="is_fraud", unit="share"),
            ),
            "the verdicts about fraud that became known on the payments at a merchant",
        ),
        View(
            "merchant_frauds",
            "merchant_id",
            ("frauds",),
            (
                _count("num_frauds", "1d 7d 30d", "verdicts on its payments that say fraud, each one counted"),
                _mean(
                    "mean_fraud_amount", "7d 30d", "their mean amount", of="amount_micros", unit="currency", scale=MICRO
                ),
                Measure("since", "seconds_since_fraud", "since the last one became known, within the longest window"),
            ),
            "the verdicts on the payments at a merchant that say fraud",
        ),
        View(
            "merchant_genuine",
            "merchant_id",
            ("genuine",),
            (
                _count("num_genuine", "30d", "verdicts on its payments that say genuine, each one counted"),
                Measure("since", "seconds_since_genuine", "since the last one became known, within the longest window"),
            ),
            "the verdicts on the payments at a merchant that say genuine",
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
            "payment_v2",
            "payments",
            (
                "account_payments",
                "merchant_activity",
                "merchant_risk",
                "merchant_frauds",
                "merchant_genuine",
                "card_activity",
                "account_profile",
            ),
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
