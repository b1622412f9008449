"""A declared threshold keeps its promise; an infeasible one says why and what would help."""

import numpy as np
import pytest

from training import thresholds
from training.metrics import Sample
from training.per_segment import choose_per_segment, review_band
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


def test_as_many_rows_as_a_proof_needs_at_least_suffice_where_they_prove_the_limit_exactly() -> None:
    rows = Sample(np.array([0.1, 0.2], np.float32), np.zeros(2, bool), np.ones(2), np.arange(2))

    found = choose(Promise(limit=0.3, confidence=0.51), rows, guide=rows)  # 0.7 squared is 0.49

    assert found.bound == pytest.approx(0.3)


def test_no_rows_at_all_are_infeasible() -> None:
    nothing = draw(14, num_rows=0)

    by_rate = choose(Promise(), nothing, guide=nothing)
    by_precision = choose(Promise(kind="precision"), nothing, guide=nothing)

    assert by_rate.threshold is None
    assert by_precision.threshold is None


def told_apart(num_benign: int, num_violations: int) -> Sample:
    """Rows whose scores say what they are."""
    labels = np.arange(num_benign + num_violations) >= num_benign
    scores = np.where(labels, 0.9, 0.1).astype(np.float32)
    return Sample(scores, labels, np.ones(len(labels)), np.arange(len(labels)))


@pytest.mark.parametrize("promise", [Promise(kind="precision", limit=0.9), Promise(limit=0.05, min_recall=0.5)])
@pytest.mark.parametrize(("num_benign", "num_violations"), [(0, 0), (2000, 0), (2000, 3)])
def test_too_few_violations_are_no_word_against_the_detector(
    promise: Promise, num_benign: int, num_violations: int
) -> None:
    found = choose(promise, told_apart(num_benign, num_violations), guide=told_apart(1700, 300))

    assert found.threshold is None
    assert "better detector" not in str(found.reason)
    assert (found.num_more_labels is None) == (num_violations == 0)


def test_a_few_labels_that_are_all_right_ask_for_the_rest_of_the_proof() -> None:
    found = choose(Promise(kind="precision", limit=0.9), told_apart(0, 9), guide=told_apart(1700, 300))

    assert "the proof needs 29 flagged ones" in str(found.reason)
    assert found.num_more_labels == 20


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


def test_recall_is_proved_with_the_strictest_threshold_and_infeasible_with_too_few_violations() -> None:
    promise = Promise(kind="recall", limit=0.8)
    population = draw(16, num_rows=400_000)

    found = choose(promise, draw(17, num_rows=3000), guide=draw(18, num_rows=10))
    few = choose(promise, draw(19, num_rows=60), guide=draw(18, num_rows=10))

    assert found.threshold is not None
    assert found.bound is not None
    assert found.bound >= 0.8
    assert (population.scores[population.labels] >= found.threshold).mean() >= 0.8
    assert few.threshold is None
    assert "even if none is missed the proof needs 14" in str(few.reason)
    assert few.num_more_labels


def test_a_recall_beside_a_false_positive_rate_is_proved_too_or_infeasible() -> None:
    rows = draw(20, num_rows=4000)

    modest = choose(Promise(limit=0.05, min_recall=0.4), rows, guide=rows)
    bold = choose(Promise(limit=0.05, min_recall=0.95), rows, guide=rows)

    assert modest.threshold is not None
    assert modest.recall_bound is not None
    assert 0.4 <= modest.recall_bound <= (rows.scores[rows.labels] >= modest.threshold).mean()
    assert bold.threshold is None
    assert "better detector" in str(bold.reason)


def segmented(seed: int, num_rows: int) -> tuple[Sample, np.ndarray]:
    """Half of the rows are of a segment whose benign events score higher, a few of a rare one."""
    rows = draw(seed, num_rows=num_rows)
    names = np.random.default_rng([seed, 1]).choice(
        np.array(["chat", "code", "rare"], object), num_rows, p=[0.5, 0.48, 0.02]
    )
    scores = np.where(names == "code", (rows.scores + 1) / 2, rows.scores).astype(np.float32)
    return Sample(scores, rows.labels, rows.weights, rows.clusters), names


def test_each_segment_keeps_the_promise_with_a_threshold_of_its_own() -> None:
    (rows, names), (guide, guide_names) = segmented(21, 8000), segmented(22, 8000)
    population, of = segmented(23, 400_000)

    found = choose_per_segment(
        Promise(limit=0.05, per="kind"), rows, guide=guide, segments=names, guide_segments=guide_names
    )

    assert set(found.segments) == {"chat", "code", "other"}
    cuts = found.cuts({"kind": of})
    assert isinstance(cuts, np.ndarray)
    for name in ("chat", "code"):
        benign = (of == name) & ~population.labels
        assert 0.03 < (population.scores[benign] >= cuts[benign]).mean() <= 0.05
    assert found.at("code") == found.threshold
    assert found.at("never seen") == found.segments["other"].threshold


def test_a_segment_without_enough_labels_is_named_and_never_flagged() -> None:
    (rows, names), (guide, guide_names) = segmented(24, 3000), segmented(25, 3000)

    found = choose_per_segment(
        Promise(limit=0.01, per="kind"), rows, guide=guide, segments=names, guide_segments=guide_names
    )

    assert found.at("rare") is None
    assert "kind is other" in str(found.reason)
    assert found.threshold is not None
    assert np.isinf(found.cuts({"kind": np.array(["rare"], object)})).all()  # type: ignore[arg-type]


def test_the_largest_segments_stand_alone() -> None:
    names = np.repeat([f"country {n:02}" for n in range(25)], [200] * 24 + [2000]).astype(object)
    rows = draw(27, num_rows=len(names))

    found = choose_per_segment(Promise(per="country"), rows, guide=rows, segments=names, guide_segments=names)

    assert len(found.segments) == 21
    assert "country 24" in found.segments


def test_what_was_seen_is_of_all_proved_segments_and_none_is_named_that_nobody_is_in() -> None:
    (rows, names), (guide, guide_names) = segmented(30, 8000), segmented(31, 8000)
    names, guide_names = (np.where(of == "rare", "code", of) for of in (names, guide_names))

    found = choose_per_segment(
        Promise(limit=0.05, per="kind"), rows, guide=guide, segments=names, guide_segments=guide_names
    )

    assert set(found.segments) == {"chat", "code"}
    benign = ~rows.labels
    assert found.num_rows == benign.sum()
    assert found.observed == pytest.approx((rows.scores >= found.cuts({"kind": names}))[benign].mean())


@pytest.mark.parametrize("capacity", [0, 20, 100_000])
def test_the_band_below_a_threshold_is_as_wide_as_people_have_time_for(capacity: int) -> None:
    rows = draw(26, num_rows=2000)
    chosen = choose(Promise(limit=0.05), rows, guide=rows)
    per_day = np.full(2000, 0.5)  # two thousand rows stand for a thousand events a day

    found = review_band(chosen, rows.scores, np.full(2000, chosen.threshold), per_day=per_day, capacity=capacity)

    if capacity == 0:
        assert found.review_from is None
        return
    assert found.review_from is not None
    is_in_band = (rows.scores >= found.review_from) & (rows.scores < found.threshold)
    assert is_in_band.sum() == min(2 * capacity, (rows.scores < found.threshold).sum())


def test_a_share_just_above_the_limit_takes_more_labels_than_anybody_has() -> None:
    assert thresholds._num_rows_proving(0.8, 0.05, 0.8 + 1e-6) == thresholds._MOST_ROWS
