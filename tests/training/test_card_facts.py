"""What a card says follows from the evaluation, and says no more than was shown."""

import pytest

from tests.training.conftest import behaviour_spec
from tests.training.test_gate import estimate, evaluation_of
from training.card_facts import facts_of
from training.evaluation import Comparison, Difference
from training.gate import Verdict
from training.metrics import Estimate

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
