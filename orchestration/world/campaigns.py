"""The campaigns of the world: waves that start, change and end, and the accounts and merchants that take part."""

from dataclasses import dataclass

import numpy as np

from feature_repo.lake import DAY_US
from orchestration.world.population import ACCOUNT, DOMAINS, NUM_LASTING_DOMAINS, Role, num_signups
from orchestration.world.scale import Scale


@dataclass(frozen=True)
class Campaign:
    """Waves of one kind: the first starts on day `first`, a new one every `every` days, each lasts `lasts` days."""

    first: int
    every: int
    lasts: int
    share: float  # of the world's accounts (or merchants) in each wave

    def waves(self, day: int) -> list[int]:
        """The numbers of the waves that are on, on a day."""
        newest = (day - self.first) // self.every
        return [
            wave
            for wave in range(max(0, newest - self.lasts // self.every), newest + 1)
            if self.age(wave, day) < self.lasts
        ]

    def age(self, wave: int, day: int) -> int:
        """How many days before `day` a wave started."""
        return day - self.first - wave * self.every


SIGNING_UP = {
    Role.ACCOUNT_FARM: Campaign(first=1, every=5, lasts=10, share=0.004),
    Role.TRIAL_ABUSE: Campaign(first=0, every=3, lasts=8, share=0.0015),
}
BEHAVING = {
    Role.JAILBREAK_PROBING: Campaign(first=1, every=4, lasts=7, share=0.002),
    Role.SCRAPING: Campaign(first=2, every=5, lasts=9, share=0.0015),
    Role.STOLEN_CARDS: Campaign(first=1, every=4, lasts=6, share=0.001),
    Role.TAKEOVER: Campaign(first=0, every=3, lasts=5, share=0.002),
}
COMPROMISED_MERCHANTS = Campaign(first=2, every=5, lasts=8, share=0.006)
SIGNUP_DAYS = 3  # a farm or a trial abuser opens its accounts during the first days of a wave


def dishonest_cohort(scale: Scale, day: int) -> np.ndarray:
    """The accounts that campaigns open on a day."""
    cohorts = [
        _wave_cohort(scale, day, role=role, wave=wave)
        for role, campaign in SIGNING_UP.items()
        for wave in campaign.waves(day)
        if campaign.age(wave, day) < SIGNUP_DAYS
    ]
    cohort = np.concatenate([np.zeros(0, ACCOUNT), *cohorts])
    cohort["number"] = day * scale.num_accounts + num_signups(scale, day) + np.arange(len(cohort))
    cohort["card"] = np.where(cohort["card"] < 0, cohort["number"], cohort["card"])
    return cohort


def _wave_cohort(scale: Scale, day: int, *, role: Role, wave: int) -> np.ndarray:
    """A farm shares few addresses and few devices; a trial abuser keeps device and card and changes the address."""
    rng = scale.stream("wave", role, wave, day)
    size = max(1, round(SIGNING_UP[role].share * scale.num_accounts / SIGNUP_DAYS))
    cohort = np.zeros(size, ACCOUNT)
    cohort["role"], cohort["wave"] = role, wave
    cohort["signup_us"] = scale.start_us(day) + (rng.random(size) * DAY_US * 0.9).astype(np.int64)
    cohort["domain"] = np.where(
        rng.random(size) < 0.65,
        rng.integers(NUM_LASTING_DOMAINS, len(DOMAINS), size),
        rng.integers(0, NUM_LASTING_DOMAINS, size),
    )
    cohort["requests_per_day"] = rng.lognormal(0.6, 0.7, size)
    cohort["payments_per_day"] = 0.02
    cohort["peak_hour"] = rng.normal(12, 6, size) % 24
    cohort["amount_log"] = rng.normal(2.5, 0.6, size)
    cohort["favourite"] = rng.integers(0, 2**31, size)
    key = 20_000_000 + 10_000 * wave + 1_000 * role
    lone = np.arange(size) + 100 * (day % 10)
    if role == Role.ACCOUNT_FARM:
        cohort["plan"] = rng.choice(3, size, p=(0.8, 0.2, 0.0))
        cohort["home_ip"] = key + rng.integers(0, max(2, size // 4), size)
        cohort["device"] = np.where(
            rng.random(size) < 0.7, key + rng.integers(0, max(2, size // 3), size), key + 500 + lone
        )
        cohort["card"] = -1
    else:
        cohort["plan"] = 1
        cohort["home_ip"] = np.where(rng.random(size) < 0.3, key, key + 100 + lone)
        cohort["device"] = np.where(rng.random(size) < 0.75, key + rng.integers(0, 2, size), key + 500 + lone)
        cohort["card"] = np.where(rng.random(size) < 0.5, key, -1)
    cohort["work_ip"] = cohort["home_ip"]
    return cohort


@dataclass(frozen=True)
class Cast:
    """Who takes part in what on one day: a role and a wave per account, and how far that wave has come, 0 to 1."""

    role: np.ndarray
    wave: np.ndarray
    progress: np.ndarray


def cast(scale: Scale, accounts: np.ndarray, day: int) -> Cast:
    """The parts that accounts play on a day; a farm whose wave is over plays no part any more."""
    role, wave = np.zeros(len(accounts), np.int8), np.full(len(accounts), -1, np.int32)
    progress = np.zeros(len(accounts))
    for kind, campaign in {**SIGNING_UP, **BEHAVING}.items():
        for number in campaign.waves(day):
            members = _members(scale, accounts, kind=kind, wave=number)
            role[members], wave[members] = kind, number
            progress[members] = campaign.age(number, day) / campaign.lasts
    return Cast(role, wave, progress)


def _members(scale: Scale, accounts: np.ndarray, *, kind: Role, wave: int) -> np.ndarray:
    if kind in SIGNING_UP:
        return np.flatnonzero((accounts["role"] == kind) & (accounts["wave"] == wave))
    campaign = BEHAVING[kind]
    known_us = scale.start_us(campaign.first + wave * campaign.every)
    could = np.flatnonzero((accounts["signup_us"] < known_us) & (accounts["role"] == Role.HONEST))
    size = max(1, round(campaign.share * scale.num_accounts))
    return scale.stream("members", kind, wave).choice(could, min(size, len(could)), replace=False)


def compromised_merchants(scale: Scale, day: int) -> dict[int, int]:
    """The merchants whose terminals leak cards on a day, and the wave of each; neither the largest nor the smallest."""
    size = max(1, round(COMPROMISED_MERCHANTS.share * scale.num_merchants))
    found = {}
    for wave in COMPROMISED_MERCHANTS.waves(day):
        rng = scale.stream("merchants", wave)
        for merchant in rng.integers(scale.num_merchants // 20, scale.num_merchants // 3, size):
            found[int(merchant)] = wave
    return found
