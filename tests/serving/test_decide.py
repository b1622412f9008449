from serving.decide import decide, decide_degraded
from training.policy import Action, LabelPolicy, Policy

POLICY = Policy(
    name="content",
    labels={
        "spam": LabelPolicy(definition="bulk messages", action=Action.THROTTLE),
        "attack": LabelPolicy(definition="attacks on the service", action=Action.BLOCK),
    },
    degraded=Action.HOLD,
    max_actions_per_day=10,
)
LIMITS = {"spam": 0.5, "attack": 0.9}


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
    decision = decide({"attack": 0.95}, LIMITS, policy=POLICY, actions_left=0)

    assert decision.action is Action.LOG
    assert "10 actions of today are spent" in decision.reasons[-1]


def test_without_a_score_the_policy_answers_and_says_so() -> None:
    decision = decide_degraded("features are unavailable", POLICY)

    assert decision.is_degraded
    assert decision.action is Action.HOLD
