"""The accounts of the world: who they are, what they share, and how much they do."""

from enum import IntEnum

import numpy as np

from feature_repo.lake import DAY_US
from orchestration.world.scale import Scale

PLANS = ("free", "trial", "paid")
DOMAINS = (
    "mail.example", "post.example", "inbox.example", "works.example", "campus.example",
    "shop.example", "quickmail.example", "tempbox.example", "dropmail.example", "tenminutes.example",
)  # fmt: skip
NUM_LASTING_DOMAINS = 6  # the others hand out throw-away addresses; some honest people use them too
LAUNCH_SHARE = 0.4  # of all accounts waited for the launch and sign up on day 0; the rest come evenly


class Role(IntEnum):
    """What an account is really doing. The first two are for life, the others for the time of a campaign."""

    HONEST = 0
    ACCOUNT_FARM = 1
    TRIAL_ABUSE = 2
    JAILBREAK_PROBING = 3
    SCRAPING = 4
    STOLEN_CARDS = 5
    TAKEOVER = 6


ACCOUNT = np.dtype(
    [
        ("number", "i8"),
        ("signup_us", "i8"),
        ("role", "i1"),
        ("wave", "i4"),
        ("plan", "i1"),
        ("domain", "i1"),
        ("device", "i8"),
        ("home_ip", "i8"),
        ("work_ip", "i8"),
        ("card", "i8"),
        ("requests_per_day", "f8"),
        ("payments_per_day", "f8"),
        ("peak_hour", "f8"),
        ("amount_log", "f8"),
        ("is_rough", "?"),
        ("favourite", "i8"),
    ]
)


def num_signups(scale: Scale, day: int) -> int:
    """How many honest accounts sign up on a day."""
    if day == 0:
        return int(scale.num_accounts * LAUNCH_SHARE)
    return max(1, int(scale.num_accounts * (1 - LAUNCH_SHARE) / max(1, scale.num_days - 1)))


def honest_cohort(scale: Scale, day: int) -> np.ndarray:
    """The honest accounts that sign up on a day: heavy-tailed habits, some shared devices, cards and offices."""
    rng = scale.stream("cohort", day)
    size = num_signups(scale, day)
    cohort = np.zeros(size, ACCOUNT)
    cohort["number"] = numbers = day * scale.num_accounts + np.arange(size)
    cohort["signup_us"] = scale.start_us(day) + np.sort(rng.random(size) ** (2 if day == 0 else 1) * DAY_US * 0.98)
    cohort["plan"] = rng.choice(3, size, p=(0.55, 0.2, 0.25))
    _give_belongings(cohort, numbers, rng, num_offices=max(3, scale.num_accounts // 150))
    _give_habits(cohort, rng)
    return cohort


def _give_belongings(cohort: np.ndarray, numbers: np.ndarray, rng: np.random.Generator, *, num_offices: int) -> None:
    size = len(cohort)
    throwaway = rng.random(size) < 0.07
    lasting = rng.integers(0, NUM_LASTING_DOMAINS, size)
    cohort["domain"] = np.where(throwaway, rng.integers(NUM_LASTING_DOMAINS, len(DOMAINS), size), lasting)
    family = np.where(rng.random(size) < 0.12, np.maximum(numbers - rng.integers(1, 4, size), 0), numbers)
    cohort["device"] = np.where(rng.random(size) < 0.03, 10_000_000 + rng.integers(0, num_offices, size), family)
    cohort["card"] = np.where(rng.random(size) < 0.6, family, numbers)
    cohort["home_ip"] = np.where(
        rng.random(size) < 0.2, 1_000_000 + rng.integers(0, num_offices, size), 2_000_000 + family
    )
    office = (num_offices * rng.random(size) ** 2).astype(np.int64)
    cohort["work_ip"] = np.where(rng.random(size) < 0.35, 500_000 + office, cohort["home_ip"])


def _give_habits(cohort: np.ndarray, rng: np.random.Generator) -> None:
    size = len(cohort)
    paid = cohort["plan"] == PLANS.index("paid")
    cohort["requests_per_day"] = np.minimum(rng.lognormal(-1.25, 1.2, size) * np.where(paid, 1.8, 1.0), 60)
    cohort["payments_per_day"] = np.minimum(rng.lognormal(-1.75, 1.0, size), 8)
    cohort["peak_hour"] = rng.normal(14, 4, size) % 24
    cohort["amount_log"] = rng.normal(3.0, 0.8, size)
    cohort["is_rough"] = rng.random(size) < 0.03
    cohort["favourite"] = rng.integers(0, 2**31, size)
