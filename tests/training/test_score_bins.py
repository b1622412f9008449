import numpy as np
import pytest

from training.score_bins import ScoreBins

NUM_WORLDS = 400


def bins(rng: np.random.Generator, num_rows: int = 2_000) -> ScoreBins:
    """The population, from a sample that took high scores more often than low ones."""
    scores = rng.beta(1, 6, num_rows * 3)
    probability = 0.1 + 0.9 * scores
    taken = rng.random(len(scores)) < probability
    return ScoreBins.of(scores[taken], 1 / probability[taken])


def test_the_weighted_shares_are_those_of_the_population() -> None:
    found = bins(np.random.default_rng(1), 100_000)

    population = np.searchsorted(found.edges, np.random.default_rng(2).beta(1, 6, 200_000))

    assert np.bincount(population) / 200_000 == pytest.approx(found.shares, abs=0.006)


@pytest.mark.parametrize("num_rows", [50, 500, 20_000])
def test_the_same_population_is_called_drift_in_at_most_one_percent_of_worlds(num_rows: int) -> None:
    shifts = []
    for seed in range(NUM_WORLDS):
        rng = np.random.default_rng(seed)
        shifts.append(bins(rng).shift(rng.beta(1, 6, num_rows)))

    assert sum(shift.index > shift.by_chance for shift in shifts) <= 0.025 * NUM_WORLDS
    assert sum(shift.is_drift for shift in shifts) <= 0.01 * NUM_WORLDS


def test_scores_that_moved_are_drift_once_there_are_enough_of_them() -> None:
    rng = np.random.default_rng(1)
    found = bins(rng)

    assert found.shift(rng.beta(2, 5, 5_000)).is_drift
    assert not found.shift(rng.beta(2, 5, 5)).is_drift


def test_scores_that_are_all_the_same_have_one_bin_less_and_no_drift_from_themselves() -> None:
    found = ScoreBins.of(np.full(100, 0.5), np.ones(100))

    assert sum(found.shares) == pytest.approx(1)
    assert not found.shift(np.full(100, 0.5)).is_drift
