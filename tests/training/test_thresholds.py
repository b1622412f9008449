"""A declared threshold keeps its promise; an infeasible one says why and what would help."""

import numpy as np
import pytest

from training.metrics import Sample
from training.policy import Promise
from training.thresholds import choose, thin


def draw(seed: int, *, num_rows: int, prevalence: float = 0.1, signal: float = 2.0) -> Sample:
    """Independent rows of a population whose scores are a normal's quantile."""
    generator = np.random.default_rng(seed)
    labels = generator.random(num_rows) < prevalence
    scores = 1 / (1 + np.exp(-(generator.normal(size=num_rows) + signal * labels)))
    return Sample(scores.astype(np.float32), labels, np.ones(num_rows), np.arange(num_rows))


@pytest.mark.parametrize("promise", [Promise(limit=0.05), Promise(kind="precision", limit=0.7)])
def test_a_feasible_promise_is_broken_on_the_population_at_most_as_often_as_stated(promise: Promise) -> None:
    population = draw(1, num_rows=400_000)
    num_worlds, num_feasible, num_broken = 200, 0, 0

    for seed in range(num_worlds):
        found = choose(promise, draw(2 * seed + 2, num_rows=1500), guide=draw(2 * seed + 3, num_rows=1500))
        if found.threshold is None:
            continue
        num_feasible += 1
        flagged = population.scores >= found.threshold
        if promise.kind == "benign_fpr":
            num_broken += flagged[~population.labels].mean() > promise.limit
        else:
            num_broken += population.labels[flagged].mean() < promise.limit

    assert num_feasible > 100
    assert num_broken <= 0.05 * num_worlds + 3 * np.sqrt(0.05 * 0.95 * num_worlds)


def test_too_few_benign_labels_are_infeasible_and_the_missing_ones_make_it_feasible() -> None:
    rows = draw(5, num_rows=200)

    found = choose(Promise(limit=0.01), rows, guide=rows)

    assert found.threshold is None
    assert found.num_more_labels is not None
    assert "needs 299" in str(found.reason)
    more = draw(6, num_rows=200 + found.num_more_labels + 20)
    assert choose(Promise(limit=0.01), more, guide=rows).threshold is not None


def test_a_weak_detector_is_told_that_labels_will_not_help() -> None:
    found = choose(
        Promise(kind="precision", limit=0.9),
        draw(7, num_rows=5000, signal=0.0),
        guide=draw(8, num_rows=5000, signal=0.0),
    )

    assert found.threshold is None
    assert found.num_more_labels is None
    assert "better detector" in str(found.reason)


def test_precision_just_out_of_reach_is_feasible_with_the_labels_it_asks_for() -> None:
    promise = Promise(kind="precision", limit=0.9)
    found = choose(promise, draw(9, num_rows=300, signal=3.0), guide=draw(10, num_rows=300, signal=3.0))
    assert found.threshold is None
    assert found.num_more_labels is not None

    num_rows = 300 + 10 * found.num_more_labels
    after = choose(promise, draw(11, num_rows=num_rows, signal=3.0), guide=draw(12, num_rows=num_rows, signal=3.0))

    assert after.threshold is not None
    assert after.bound is not None
    assert after.bound >= 0.9


def test_scores_that_saturate_on_benign_rows_are_infeasible() -> None:
    rows = draw(13, num_rows=1000)
    saturated = Sample(np.ones(1000, dtype=np.float32), rows.labels, rows.weights, rows.clusters)

    found = choose(Promise(limit=0.05), saturated, guide=rows)

    assert found.threshold is None
    assert "highest possible score" in str(found.reason)


def test_no_rows_at_all_are_infeasible() -> None:
    nothing = draw(14, num_rows=0)

    by_rate = choose(Promise(), nothing, guide=nothing)
    by_precision = choose(Promise(kind="precision"), nothing, guide=nothing)

    assert by_rate.threshold is None
    assert by_precision.threshold is None


def test_thinning_undoes_a_biased_sample() -> None:
    population = draw(15, num_rows=300_000)
    probability = np.where(population.scores > 0.8, 0.9, 0.1)  # what looks bad is reviewed more often
    chosen = np.random.default_rng(0).random(300_000) < probability
    reviewed = Sample(
        population.scores[chosen], population.labels[chosen], 1 / probability[chosen], population.clusters[chosen]
    )

    uniform = thin(reviewed)

    assert reviewed.labels.mean() > 1.5 * population.labels.mean()
    assert uniform.labels.mean() == pytest.approx(population.labels.mean(), rel=0.05)
    assert uniform.scores.mean() == pytest.approx(population.scores.mean(), rel=0.02)
