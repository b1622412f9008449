"""The payments of a day: habits of amount and merchant, and four ways in which cards are abused."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.world.campaigns import compromised_merchants
from orchestration.world.population import Role
from orchestration.world.requests import moments
from orchestration.world.rows import HOUR_US, Day, Happened, addresses, campaigns, choose, happened, names

BACKGROUND = 0.0008  # of payments are fraud that belongs to no campaign and looks like nothing
LEAK = 0.45  # of the payments at a compromised merchant are fraud
MAX_AMOUNT = 5_000.0


@dataclass(frozen=True)
class _Payments:
    """One entry per payment; `account` is a position, `wave` that of the merchant's campaign or -1."""

    account: np.ndarray
    event_us: np.ndarray
    card: np.ndarray
    merchant: np.ndarray
    amount: np.ndarray
    fraud: np.ndarray
    merchant_wave: np.ndarray


def payments_of(day: Day) -> Happened:
    """The payments of a day with their truth."""
    rng = day.stream("payments")
    paid = _payments(day, rng)
    accounts = day.accounts
    mobile = rng.random(len(paid.account)) < 0.1
    home = accounts["home_ip"][paid.account]
    stolen = day.cast.role[paid.account] == Role.STOLEN_CARDS
    ip = np.where(mobile | stolen, 5_000_000 + rng.integers(0, 400, len(home)), home)
    columns = {
        "account_id": names("a", accounts["number"][paid.account]),
        "card_id": names("k", paid.card),
        "merchant_id": names("m", paid.merchant),
        "ip": addresses(ip),
        "amount": pa.array(np.round(np.clip(paid.amount, 0.5, MAX_AMOUNT), 2)),
    }
    return happened("payments", day, paid.event_us, columns=columns, truth=_truth(day, paid))


def _payments(day: Day, rng: np.random.Generator) -> _Payments:
    accounts, role = day.accounts, day.cast.role
    account = np.repeat(np.arange(len(accounts)), rng.poisson(_rates(day)))
    event_us = day.start_us + (moments(day, account, rng) * HOUR_US).astype(np.int64)
    alive = event_us > accounts["signup_us"][account]
    account, event_us = account[alive], event_us[alive]
    merchant = _merchants(day, account, rng)
    amount = rng.lognormal(accounts["amount_log"][account], 0.45) * np.where(rng.random(len(account)) < 0.01, 6.0, 1.0)
    leaking = compromised_merchants(day.scale, day.number)
    wave = np.full(day.scale.num_merchants, -1)
    wave[list(leaking)] = list(leaking.values())
    leaked = (wave[merchant] >= 0) & (rng.random(len(account)) < LEAK)
    taken = (role[account] == Role.TAKEOVER) & (rng.random(len(account)) < 0.6)
    stolen = (role[account] == Role.STOLEN_CARDS) & (rng.random(len(account)) < 0.85)
    amount = np.where(taken, amount * rng.uniform(2, 7, len(account)), amount)
    amount = np.where(stolen, _stolen_amounts(day, account, rng), amount)
    card = np.where(stolen, rng.choice(accounts["card"], len(account)), accounts["card"][account])
    fraud = leaked | taken | stolen | (rng.random(len(account)) < BACKGROUND)
    return _Payments(account, event_us, card, merchant, amount, fraud, np.where(leaked, wave[merchant], -1))


def _rates(day: Day) -> np.ndarray:
    role = day.cast.role
    over = (day.accounts["role"] != Role.HONEST) & (role == Role.HONEST)
    rate = np.where(over, 0.0, day.accounts["payments_per_day"])
    rate = rate + np.where(role == Role.TAKEOVER, 0.3, 0.0)
    return rate + np.where(role == Role.STOLEN_CARDS, 0.8, 0.0)


def _merchants(day: Day, account: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mostly one of an account's six favourites, else any; both follow a long tail."""
    num = day.scale.num_merchants
    seed = day.accounts["favourite"][account] + 7919 * rng.integers(0, 6, len(account))
    favourite = (seed * 2_654_435_761 % (1 << 32)) / (1 << 32)
    where = np.where(rng.random(len(account)) < 0.8, favourite, rng.random(len(account)))
    return (num * where**2).astype(np.int64)


def _stolen_amounts(day: Day, account: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small amounts that test a card first, then large ones, then amounts like everybody's."""
    progress = day.cast.progress[account]
    centre = np.select([progress < 0.3, progress < 0.7], [0.9, 4.9], default=3.4)
    return rng.lognormal(centre, 0.6)


def _truth(day: Day, paid: _Payments) -> dict[str, object]:
    role = day.cast.role[paid.account]
    role = np.where(paid.fraud & ((role == Role.STOLEN_CARDS) | (role == Role.TAKEOVER)), role, 0)
    leaked = pa.array(paid.merchant_wave >= 0)
    merchant_campaign = names("compromised_merchant-", paid.merchant_wave)
    own = campaigns(role, day.cast.wave[paid.account])
    return {
        "fraud": paid.fraud.astype(np.int8),
        "campaign": pc.if_else(leaked, merchant_campaign, own),
        "stratum": choose(("usual", "fraud"), paid.fraud),
    }
