import random

import pytest

from serving.canary import Canary, interval
from serving.challenges import Challenge

ACCOUNTS = [f"account-{number}" for number in range(20_000)]


def canary(share: float = 0.1) -> Canary:
    return Canary(Challenge("content", "c" * 64, "d" * 64, share, by="tom", at_us=1, number=1))


def run(found: Canary, *, rate: float, champions_rate: float, num: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(num):
        found.count((is_mine, rng.random() < (rate if is_mine else champions_rate)) for is_mine in (True, False, False))


def test_an_account_is_always_answered_by_the_same_side_and_the_share_is_kept() -> None:
    first, second = ([canary().answers(account) for account in ACCOUNTS] for _ in range(2))

    assert first == second
    assert sum(first) / len(first) == pytest.approx(0.1, abs=0.01)
    assert not canary().answers(None)


def test_a_larger_share_keeps_the_accounts_of_the_smaller_one() -> None:
    assert all(canary(0.2).answers(account) for account in ACCOUNTS if canary(0.1).answers(account))


def test_an_action_rate_outside_the_champions_stops_it() -> None:
    wild = canary()

    run(wild, rate=0.2, champions_rate=0.05, num=2000, seed=1)

    assert "action rate" in wild.stopped
    assert not any(map(wild.answers, ACCOUNTS))


def test_one_that_behaves_like_the_champion_is_not_stopped() -> None:
    stopped = 0
    for seed in range(100):
        tame = canary()
        run(tame, rate=0.05, champions_rate=0.05, num=1700, seed=seed)
        stopped += bool(tame.stopped)

    assert stopped <= 1  # at 0.001 each, two of a hundred would come once in two hundred runs


def test_errors_stop_it() -> None:
    failing = canary()

    for _ in range(20):
        failing.failed(1)

    assert failing.stopped == "6 of 6 decisions failed"


def test_the_interval_holds_the_share_and_shrinks() -> None:
    few, many = interval(5, 50, confidence=0.95), interval(500, 5000, confidence=0.95)

    assert few[0] < many[0] < 0.1 < many[1] < few[1]
    assert interval(0, 0, confidence=0.95) == (0.0, 1.0)
