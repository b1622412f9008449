"""What a card says follows from the evaluation, and says no more than was shown."""

import numpy as np
import pytest

from tests.training.conftest import behaviour_spec
from tests.training.test_gate import estimate, evaluation_of
from training.card_facts import facts_of
from training.evaluation import Comparison, Difference
from training.gate import Verdict
from training.metrics import Estimate, Sample
from training.plots import _costs, _grid
from training.policy import Promise
from training.thresholds import Threshold

SPEC = behaviour_spec().model_copy(update={"labels": ["fraud"]})
VERDICT = Verdict(passed=True, reason="", criteria=[])


def difference(metric: str, found: Estimate, *, label: str = "fraud") -> Difference:
    return Difference(label=label, metric=metric, candidate=0.7 + found.value, champion=0.7, difference=found)


def said(*differences: Difference) -> tuple[list[str], list[str]]:
    """What is shown to be better, and to be worse."""
    found = Comparison(champion="c0ffee", differences=list(differences), only_candidate=[], only_champion=[])
    facts = facts_of(SPEC, evaluation_of(comparison=found), VERDICT)
    return facts["better"], facts["worse"]


@pytest.mark.parametrize("value", [-0.02, 0.02])
def test_of_many_differences_one_by_chance_is_not_shown_to_be_any(value: float) -> None:
    by_chance = difference("average_precision", estimate(value, 0.0149))
    others = [difference("recall", estimate(0.0))] * 99

    assert said(by_chance, *others) == ([], [])
    assert sorted(map(len, said(by_chance))) == [0, 1]


def test_a_higher_false_positive_rate_is_worse_and_said_as_it_is() -> None:
    better, worse = said(difference("benign_fpr", Estimate(value=0.01, low=0.006, high=0.014)))

    assert better == []
    assert worse == ["fraud: benign FPR 0.700 to 0.710 (+0.010, +0.006 to +0.014)"]


def partly_proved() -> Threshold:
    """A promise that is proved among payments by card, and not among wires."""
    promise = Promise(limit=0.01, per="kind")
    card = Threshold(promise=promise, threshold=0.9, bound=0.009, observed=0.005, num_rows=2000)
    wire = Threshold(promise=promise, reason="12 benign labels", num_rows=12)
    return card.model_copy(update={"segments": {"card": card, "wire": wire}})


def test_a_label_is_called_proved_where_every_segment_is_and_each_has_a_row() -> None:
    facts = facts_of(SPEC, evaluation_of(thresholds={"fraud": partly_proved()}), VERDICT)

    [tile] = [tile for tile in facts["tiles"] if tile.name == "promises proved"]
    assert tile.value == "0 of 1"
    assert tile.note == "fraud: 1 of 2 segments; the others are scored and never flagged"
    rows = [(name, one.threshold, one.reason) for name, one in facts["promises"]]
    assert rows == [("fraud where kind is card", 0.9, None), ("fraud where kind is wire", None, "12 benign labels")]


def test_the_dot_of_a_plot_stands_where_the_table_says() -> None:
    labels = np.arange(100) < 20
    sample = Sample(np.linspace(1, 0, 100), labels, np.ones(100), np.arange(100))

    figure = _grid({"fraud": sample}, evaluation_of(thresholds={"fraud": partly_proved()}), _costs)

    _, dot = figure.axes[0].lines
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((80.0, 60.0))
