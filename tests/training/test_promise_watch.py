"""A watched promise that is kept is rarely called broken, however often one looks; a broken one is found."""

import numpy as np
import pytest

from training.policy import Promise
from training.promise_watch import Live, e_value, watch

PROMISE = Promise(kind="benign_fpr", limit=0.05, confidence=0.95)


def first_alarm(generator: np.random.Generator, rate: float, num_rows: int) -> int | None:
    """After how many verdicts, looked at after every one, the promise is called broken."""
    num_wrong = np.cumsum(generator.random(num_rows) < rate)
    for num_seen, wrong in enumerate(num_wrong, start=1):
        if e_value(int(wrong), num_seen, PROMISE.limit) >= 20:
            return num_seen
    return None


def test_a_promise_kept_just_so_is_called_broken_in_few_worlds_although_one_always_looks() -> None:
    generator = np.random.default_rng(0)

    alarms = [first_alarm(generator, 0.05, 2000) is not None for _ in range(200)]

    assert np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_a_promise_broken_twofold_is_found_within_a_thousand_verdicts() -> None:
    generator = np.random.default_rng(1)

    found = [first_alarm(generator, 0.1, 1000) for _ in range(50)]

    assert sum(at is not None for at in found) >= 48


def live(seed: int, *, rate: float, num_rows: int = 4000, probability: float = 1.0) -> Live:
    """Benign events of which some are flagged; flagged ones are always reviewed, others with a probability."""
    generator = np.random.default_rng(seed)
    flagged = generator.random(num_rows) < rate
    probabilities = np.where(flagged, 1.0, probability)
    reviewed = generator.random(num_rows) < probabilities
    ids = [f"{seed}-{i}" for i in np.flatnonzero(reviewed)]
    return Live(ids, flagged[reviewed], np.zeros(reviewed.sum(), dtype=bool), probabilities[reviewed])


def test_reviewing_what_was_flagged_more_often_breaks_no_promise() -> None:
    rows = live(2, rate=0.03, probability=0.2)

    found = watch("fraud", PROMISE, rows, num_promises=1)

    assert rows.flagged.mean() > 2 * PROMISE.limit
    assert not found.is_broken
    assert found.num_wrong / found.num_rows == pytest.approx(0.03, abs=0.015)


def test_a_broken_promise_is_found_through_unequal_reviewing() -> None:
    found = watch("fraud", PROMISE, live(3, rate=0.15, probability=0.3), num_promises=1, segment="prompt")

    assert found.is_broken
    assert "fraud in prompt: benign_fpr 0.05 is broken; live, " in found.in_words()


def test_a_later_look_keeps_what_an_earlier_one_kept_until_a_rarer_one_comes() -> None:
    rows = live(4, rate=0.05, probability=0.2)
    half = Live(rows.event_ids[:500], rows.flagged[:500], rows.violates[:500], rows.probabilities[:500])
    rarer = Live(rows.event_ids, rows.flagged, rows.violates, np.append(rows.probabilities[:-1], 0.01))

    assert set(half.uniform().event_ids) <= set(rows.uniform().event_ids)
    assert set(rarer.uniform().event_ids[:-1]) < set(rows.uniform().event_ids)


@pytest.mark.parametrize(
    ("promise", "num_rows", "num_wrong"),
    [
        (Promise(kind="precision", limit=0.8), 30, 10),
        (Promise(kind="recall", limit=0.8), 40, 20),
        (Promise(limit=0.1), 60, 10),
    ],
)
def test_each_kind_counts_what_it_is_about(promise: Promise, num_rows: int, num_wrong: int) -> None:
    violates = np.repeat([True, True, False, False], [20, 20, 10, 50])
    flagged = np.repeat([True, False, True, False], [20, 20, 10, 50])
    rows = Live([str(i) for i in range(100)], flagged, violates, np.ones(100))

    found = watch("fraud", promise, rows, num_promises=1)

    assert (found.num_rows, found.num_wrong) == (num_rows, num_wrong)


def test_several_promises_share_the_error_and_nothing_seen_is_no_evidence() -> None:
    nothing = Live([], np.array([], dtype=bool), np.array([], dtype=bool), np.array([]))

    assert watch("fraud", PROMISE, nothing, num_promises=1).e_value == pytest.approx(1.0)
    alone = watch("fraud", PROMISE, live(5, rate=0.09, num_rows=600), num_promises=1)
    among_many = watch("fraud", PROMISE, live(5, rate=0.09, num_rows=600), num_promises=10**6)
    assert alone.e_value == among_many.e_value
    assert alone.is_broken
    assert not among_many.is_broken
