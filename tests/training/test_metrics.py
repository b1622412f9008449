"""The metrics equal sklearn's on any weights, and their intervals cover the truth."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from training.metrics import (
    Sample,
    binomial_interval,
    card_precision,
    draw_replicates,
    estimate,
    estimate_rate,
    replicate,
)


def sample_of(seed: int, *, num_rows: int = 300, num_entities: int = 60, decimals: int = 2) -> Sample:
    """Overlapping scores with ties, weights and repeated entities."""
    generator = np.random.default_rng(seed)
    labels = generator.random(num_rows) < 0.2
    scores = 1 / (1 + np.exp(-(generator.normal(size=num_rows) + 1.5 * labels - 1)))
    return Sample(
        scores=np.round(scores, decimals),
        labels=labels,
        weights=1 / generator.uniform(0.1, 1, num_rows),
        clusters=generator.integers(0, num_entities, num_rows),
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), decimals=st.integers(1, 6))
def test_every_replicate_equals_sklearn_with_sample_weights(seed: int, decimals: int) -> None:
    sample = sample_of(seed, decimals=decimals)
    draws = draw_replicates(60, num_replicates=3, seed=seed)

    values = replicate(sample, draws, threshold=0.5)

    for row, draw in enumerate(draws):
        weights = draw[sample.clusters] * sample.weights
        expected_ap = average_precision_score(sample.labels, sample.scores, sample_weight=weights)
        expected_auc = roc_auc_score(sample.labels, sample.scores, sample_weight=weights)
        expected_brier = brier_score_loss(sample.labels, sample.scores, sample_weight=weights)
        fpr, tpr, _ = roc_curve(sample.labels, sample.scores, sample_weight=weights, drop_intermediate=False)
        flagged = sample.scores >= 0.5
        assert values["average_precision"][row] == pytest.approx(expected_ap)
        assert values["auc"][row] == pytest.approx(expected_auc)
        assert values["brier"][row] == pytest.approx(expected_brier)
        assert values["recall_at_1pct_fpr"][row] == pytest.approx(tpr[fpr <= 0.01].max())
        assert values["recall"][row] == pytest.approx(
            np.average(flagged[sample.labels], weights=weights[sample.labels])
        )
        assert values["benign_fpr"][row] == pytest.approx(
            np.average(flagged[~sample.labels], weights=weights[~sample.labels])
        )


def test_the_calibration_error_equals_its_definition_bin_by_bin() -> None:
    sample = sample_of(1, decimals=6)

    values = replicate(sample, draw_replicates(60, num_replicates=1))

    expected = 0.0
    for low in np.arange(15) / 15:
        rows = (sample.scores >= low) & (sample.scores < low + 1 / 15)
        if rows.any():
            share = sample.weights[rows].sum() / sample.weights.sum()
            gap = np.average(sample.scores[rows] - sample.labels[rows], weights=sample.weights[rows])
            expected += share * abs(gap)
    assert values["ece"][0] == pytest.approx(expected)


def test_a_label_without_positives_has_no_average_precision() -> None:
    sample = sample_of(2)
    benign = sample.where(~sample.labels)

    values = replicate(benign, draw_replicates(60, num_replicates=5), threshold=0.5)

    assert estimate(values["average_precision"]) is None
    assert estimate(values["recall"]) is None
    assert estimate(values["benign_fpr"]) is not None


def test_repeating_the_rows_of_an_entity_does_not_narrow_the_interval() -> None:
    sample = sample_of(3, num_rows=2000, num_entities=2000)
    repeated = sample.where(np.repeat(np.arange(2000), 10))

    once = estimate(replicate(sample, draw_replicates(2000))["average_precision"])
    ten_times = estimate(replicate(repeated, draw_replicates(2000))["average_precision"])

    assert once is not None
    assert ten_times is not None
    assert (ten_times.low, ten_times.high) == pytest.approx((once.low, once.high))


def test_rows_of_one_entity_have_no_interval() -> None:
    alone = sample_of(seed=3, num_entities=1)

    values = replicate(alone, draw_replicates(1), threshold=0.5)

    assert {estimate(values_R) for values_R in values.values()} == {None}


def test_intervals_cover_the_population_about_as_often_as_they_say() -> None:
    population = sample_of(4, num_rows=400_000, num_entities=1, decimals=9)
    truth = roc_auc_score(population.labels, population.scores)
    num_worlds, num_covered = 100, 0

    for seed in range(num_worlds):
        rows = np.random.default_rng(seed).integers(0, 400_000, 500)
        world = Sample(population.scores[rows], population.labels[rows], np.ones(500), np.arange(500))
        found = estimate(replicate(world, draw_replicates(500, seed=seed))["auc"])
        assert found is not None
        num_covered += found.low <= truth <= found.high

    assert num_covered >= 88  # 95 expected; 88 is three standard deviations below


def test_a_rate_of_nothing_seen_still_has_an_upper_end() -> None:
    values = np.zeros(50)

    found = estimate_rate(values, np.ones(300))

    assert found is not None
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 300))


def test_the_exact_interval_misses_at_most_as_often_as_it_says() -> None:
    hits = np.random.default_rng(0).binomial(200, 0.03, 2000)

    num_missed = sum(binomial_interval(k, 200, confidence=0.95)[1] < 0.03 for k in hits)

    assert num_missed <= 2000 * 0.025 + 3 * np.sqrt(2000 * 0.025)


def test_a_card_found_on_one_day_is_not_counted_again() -> None:
    days = np.array([1, 1, 1, 2, 2, 2])
    cards = np.array(["a", "b", "c", "a", "b", "c"], dtype=object)
    scores = np.array([0.9, 0.1, 0.2, 0.9, 0.8, 0.1])
    labels = np.array([True, False, False, True, True, False])

    per_day = card_precision(days, cards, scores, labels=labels, top=1)

    assert per_day.tolist() == [1.0, 1.0]


def test_two_hundred_replicates_of_thirty_thousand_rows_and_eleven_labels_take_seconds() -> None:
    sample = sample_of(5, num_rows=30_000, num_entities=10_000, decimals=9)
    started = time.process_time()

    draws = draw_replicates(10_000)
    for _ in range(11):
        replicate(sample, draws, threshold=0.5)

    assert time.process_time() - started < 20  # 4 s on an idle core
