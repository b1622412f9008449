"""The requests of a day and some of their completions: how many, when, from where, and what they say."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from feature_repo.lake import DAY_US
from orchestration.world.grammar import load_grammar, obfuscate
from orchestration.world.population import Role
from orchestration.world.registers import ROUGH, draw_answers, draw_registers
from orchestration.world.rows import HOUR_US, Day, Happened, addresses, campaigns, choose, happened, names

KINDS = ("prompt", "completion")
COMPLETION_SHARE = 0.25  # of prompts whose completion is sent to the lake as well


@dataclass(frozen=True)
class _Requests:
    """One entry per request: the position of its account, moment, address, kind (a position in KINDS) and register."""

    account: np.ndarray
    event_us: np.ndarray
    ip: np.ndarray
    kind: np.ndarray
    register: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Requests":
        """Some of the requests."""
        return _Requests(*(column[chosen] for column in self._columns()))

    def and_then(self, others: "_Requests") -> "_Requests":
        """These requests and after them the others."""
        pairs = zip(self._columns(), others._columns(), strict=True)
        return _Requests(*(np.concatenate(pair) for pair in pairs))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.account, self.event_us, self.ip, self.kind, self.register


def requests_of(day: Day) -> Happened:
    """The prompts and completions of a day with their truth."""
    rng = day.stream("requests")
    prompts = _prompts(day, rng)
    requests = prompts.and_then(_completions(day, prompts, rng))
    account, grammar = requests.account, load_grammar()
    truth = grammar.truth(requests.register, rng)
    style = _disguises(day, account, violates=truth["any_violation"] == 1, rng=rng)
    texts = obfuscate(grammar.write(requests.register, rng), style)
    columns = {
        "account_id": names("a", day.accounts["number"][account]),
        "ip": addresses(requests.ip),
        "kind": choose(KINDS, requests.kind),
        "text": texts,
        "num_tokens": 1 + (pc.utf8_length(texts).to_numpy() * rng.uniform(0.2, 0.3, len(texts))).astype(np.int32),
    }
    facts = {
        **truth,
        "campaign": campaigns(day.cast.role[account], day.cast.wave[account]),
        "stratum": choose(tuple(r.name for r in grammar.registers), requests.register),
        "is_obfuscated": (style > 0).astype(np.int8),
    }
    return happened("requests", day, requests.event_us, columns=columns, truth=facts)


def _prompts(day: Day, rng: np.random.Generator) -> _Requests:
    account = np.repeat(np.arange(len(day.accounts)), rng.poisson(_rates(day)))
    event_us = day.start_us + (moments(day, account, rng) * HOUR_US).astype(np.int64)
    alive = event_us > day.accounts["signup_us"][account]
    account, event_us = account[alive], event_us[alive]
    mix = day.cast.role[account].astype(np.int64)
    mix[(mix == Role.HONEST) & day.accounts["is_rough"][account]] = ROUGH
    register = draw_registers(mix, load_grammar(), rng)
    return _Requests(account, event_us, _ips(day, account, event_us, rng), np.zeros_like(account), register)


def _completions(day: Day, prompts: _Requests, rng: np.random.Generator) -> _Requests:
    """The completions that are sent to the lake, seconds after their prompts and on the same day."""
    asked = prompts.take(rng.random(len(prompts.account)) < COMPLETION_SHARE)
    delay_us = (rng.lognormal(0.8, 0.5, len(asked.account)) * 1_000_000).astype(np.int64)
    register = draw_answers(asked.register, load_grammar(), rng)
    completions = _Requests(asked.account, asked.event_us + delay_us, asked.ip, np.ones_like(asked.account), register)
    return completions.take(completions.event_us < day.start_us + DAY_US)


def _rates(day: Day) -> np.ndarray:
    """Expected prompts per account on this day."""
    accounts, role = day.accounts, day.cast.role
    weekend = day.number % 7 >= 5  # by the world's own week, so that a world does not depend on when it starts
    rate = accounts["requests_per_day"] * (0.6 if weekend else 1.0)
    over = (accounts["role"] != Role.HONEST) & (role == Role.HONEST)
    fresh = day.start_us - accounts["signup_us"] < 72 * HOUR_US
    rate = np.where(over, 0.02 * rate, rate)
    rate = np.where(role == Role.TRIAL_ABUSE, rate * np.where(fresh, 2.0, 0.4), rate)
    rate = rate + np.where(role == Role.JAILBREAK_PROBING, 5.0, 0.0)
    return rate + np.where(role == Role.SCRAPING, 15 + 30 * (accounts["favourite"] % 100) / 100, 0.0)


def moments(day: Day, account: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hour (0 to 24) of each event: around the habit of its account; machines work all day, farms in one shift."""
    role, wave = day.cast.role[account], day.cast.wave[account]
    hour = rng.normal(day.accounts["peak_hour"][account], 3.5)
    shift = rng.normal((wave * 7 + 3) % 24, 1.0)
    hour = np.where((role == Role.ACCOUNT_FARM) & (rng.random(len(account)) < 0.7), shift, hour)
    steady = (rng.random(len(account)) < 0.12) | ((role == Role.SCRAPING) & (rng.random(len(account)) < 0.8))
    return np.where(steady, rng.uniform(0, 24, len(account)), hour) % 24


def _ips(day: Day, account: np.ndarray, event_us: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Home, work in working hours, now and then a mobile network that thousands share; scrapers rotate in a pool."""
    accounts = day.accounts
    hour = (event_us - day.start_us) / HOUR_US
    at_work = (hour > 8) & (hour < 18) & (rng.random(len(account)) < 0.7)
    ip = np.where(at_work, accounts["work_ip"][account], accounts["home_ip"][account])
    mobile = rng.random(len(account)) < 0.08
    ip = np.where(mobile, 3_000_000 + accounts["favourite"][account] % max(5, day.scale.num_accounts // 100), ip)
    pool = 4_000_000 + 100 * day.cast.wave[account] + rng.integers(0, 8, len(account))
    rotating = (day.cast.role[account] == Role.SCRAPING) & (rng.random(len(account)) < 0.6)
    return np.where(rotating, pool, ip)


def _disguises(day: Day, account: np.ndarray, *, violates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The style of disguise of each text; campaigns disguise more as they go on, and a few honest people do as well."""
    share = np.where(violates, 0.06 + 0.35 * day.cast.progress[account], 0.012)
    return np.where(rng.random(len(account)) < share, rng.integers(1, 5, len(account)), 0)
