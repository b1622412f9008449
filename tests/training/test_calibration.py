"""Calibration makes probabilities true without changing the order of two rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.runs import generated_spec, write_stored_run
from training import predictions
from training.calibration import Platt, fit, fit_all, probabilities
from training.metrics import Sample, draw_replicates, replicate


def overconfident(*, num_rows: int = 20_000, seed: int = 0, turn: float = 1.0) -> Sample:
    """Logits three times too large and shifted."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=num_rows)
    labels = generator.random(num_rows) < 1 / (1 + np.exp(-turn * logits))
    return Sample(3 * logits + 1, labels, np.ones(num_rows), np.arange(num_rows))


def test_it_recovers_the_scale_and_the_shift() -> None:
    platt = fit(overconfident())

    assert platt.a == pytest.approx(1 / 3, rel=0.1)
    assert platt.b == pytest.approx(-1 / 3, abs=0.06)


def test_it_lowers_the_calibration_error_on_rows_that_it_never_saw() -> None:
    platt, fresh = fit(overconfident()), overconfident(seed=1)
    draws = draw_replicates(20_000, num_replicates=1)
    before = Sample(Platt().probabilities(fresh.scores), fresh.labels, fresh.weights, fresh.clusters)
    after = Sample(platt.probabilities(fresh.scores), fresh.labels, fresh.weights, fresh.clusters)

    errors = [replicate(sample, draws)["ece"][0] for sample in (before, after)]

    assert errors[0] > 0.1
    assert errors[1] < 0.02


def test_too_few_positives_or_a_turned_order_leave_the_identity() -> None:
    few = overconfident(num_rows=15)
    turned = overconfident(turn=-1.0)

    assert fit(few) == Platt()
    assert fit(turned) == Platt()


def test_a_separable_sample_keeps_a_finite_slope() -> None:
    labels = np.arange(200) >= 100
    platt = fit(Sample(np.where(labels, 9.0, -9.0), labels, np.ones(200), np.arange(200)))

    assert 0 < platt.a < 5


@given(a=st.floats(0.01, 5), b=st.floats(-5, 5), logits=st.lists(st.floats(-50, 50), min_size=2))
def test_the_order_of_rows_never_changes(a: float, b: float, logits: list[float]) -> None:
    ordered = np.sort(np.array(logits, dtype=np.float32))

    answered = Platt(a=a, b=b).probabilities(ordered)

    assert (np.diff(answered) >= 0).all()


def test_every_label_is_fitted_and_every_row_answered(tmp_path: Path) -> None:
    spec = generated_spec()
    stored = predictions.read(write_stored_run(tmp_path / "run", spec), spec)

    platt = fit_all(stored.of("validation"))

    assert set(platt) == set(spec.labels)
    assert probabilities(stored, platt).shape == (4000, 2)
