import pytest

from serving.cuts import Cut
from serving.decide import Left, Limit, decide, decide_degraded
from training.policy import Action, LabelPolicy, Policy, Step

POLICY = Policy(
    name="content",
    labels={
        "spam": LabelPolicy(definition="bulk messages", action=Action.THROTTLE),
        "attack": LabelPolicy(definition="attacks on the service", action=Action.BLOCK),
    },
    degraded=Action.HOLD,
)
LIMITS = {"spam": 0.5, "attack": 0.9}
SPENT = Left(0, Limit("content", "policy", 10))


def test_nothing_is_done_below_every_threshold() -> None:
    decision = decide({"spam": 0.49, "attack": 0.89}, LIMITS, policy=POLICY)

    assert (decision.action, decision.labels) == (Action.ALLOW, ())


def test_the_hardest_action_of_the_flagged_labels_is_done_and_every_label_says_why() -> None:
    decision = decide({"spam": 0.5, "attack": 0.95}, LIMITS, policy=POLICY)

    assert (decision.action, decision.labels) == (Action.BLOCK, ("spam", "attack"))
    assert len(decision.reasons) == 2


def test_a_label_whose_promise_is_infeasible_is_never_flagged() -> None:
    assert decide({"spam": 1.0}, {"spam": None}, policy=POLICY).action is Action.ALLOW


def test_a_spent_budget_only_logs() -> None:
    decision = decide({"attack": 0.95}, LIMITS, policy=POLICY, left=SPENT)

    assert decision.action is Action.LOG
    assert "10 actions of today are spent" in decision.reasons[-1]


def test_without_a_score_the_policy_answers_and_says_so() -> None:
    decision = decide_degraded("features are unavailable", POLICY)

    assert decision.is_degraded
    assert decision.action is Action.HOLD


def test_without_a_score_a_spent_budget_only_logs_too() -> None:
    decision = decide_degraded("features are unavailable", POLICY, left=SPENT)

    assert (decision.action, decision.is_degraded) == (Action.LOG, True)
    assert "10 actions of today are spent: hold is only logged" in decision.reasons[-1]


def test_a_score_below_the_threshold_and_in_the_band_is_what_the_policy_says_of_uncertain_ones() -> None:
    unsure = POLICY.labels["attack"].model_copy(update={"uncertain": Action.WARN})
    policy = POLICY.model_copy(update={"labels": {**POLICY.labels, "attack": unsure}})
    band = {"attack": 0.7}

    within = decide({"attack": 0.8}, LIMITS, policy=policy, review_from=band)
    below = decide({"attack": 0.6}, LIMITS, policy=policy, review_from=band)
    without_a_threshold = decide({"attack": 0.99}, {"attack": None}, policy=policy, review_from=band)

    assert (within.action, within.labels) == (Action.WARN, ())
    assert "uncertain" in within.reasons[0]
    assert below.action is Action.ALLOW
    assert without_a_threshold.action is Action.WARN


@pytest.mark.parametrize(
    ("strikes", "action"), [(0, Action.THROTTLE), (2, Action.THROTTLE), (3, Action.BLOCK), (9, Action.SUSPEND)]
)
def test_strikes_lead_up_the_ladder(strikes: int, action: Action) -> None:
    ladder = [Step(strikes=3, action=Action.BLOCK), Step(strikes=5, action=Action.SUSPEND)]
    spam = POLICY.labels["spam"].model_copy(update={"ladder": ladder})
    policy = POLICY.model_copy(update={"labels": {**POLICY.labels, "spam": spam}})

    decision = decide({"spam": 0.6}, LIMITS, policy=policy, strikes=strikes)

    assert decision.action is action
    assert ("after" in decision.reasons[0]) == bool(strikes)


def test_a_ladder_is_not_climbed_where_the_strikes_are_not_known_and_the_decision_says_so() -> None:
    spam = POLICY.labels["spam"].model_copy(update={"ladder": [Step(strikes=1, action=Action.BLOCK)]})
    policy = POLICY.model_copy(update={"labels": {**POLICY.labels, "spam": spam}})

    flagged, benign = (decide({"spam": score}, LIMITS, policy=policy, strikes=None) for score in (0.6, 0.1))

    assert (flagged.action, flagged.is_degraded) == (Action.THROTTLE, True)
    assert "strikes are not known" in flagged.reasons[0]
    assert not benign.is_degraded


def test_a_segment_has_its_own_threshold_and_a_rare_value_that_of_the_others() -> None:
    segments = {"prompt": {"threshold": 0.5}, "other": {"threshold": 0.9}, "document": {"threshold": None}}
    cut = Cut.of({"promise": {"per": "kind"}, "threshold": 0.9, "segments": segments, "review_from": 0.4})

    found = [cut.at({"kind": kind}) for kind in ("prompt", "document", "never seen", None)]

    assert found == [0.5, None, 0.9, 0.9]
