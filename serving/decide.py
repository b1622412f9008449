"""What is done about an event: a pure function of scores and policy, the same for live, shadow and backtest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from training.policy import Action, Policy

NOTHING: Mapping[str, float | None] = {}


class Limit(NamedTuple):
    """How many actions harder than `log` somebody allows in a day; `name` is what they are counted under."""

    name: str
    whose: str
    most: int


class Left(NamedTuple):
    """What remains today of the limit that has the least room."""

    actions: int
    limit: Limit


@dataclass(frozen=True)
class Decision:
    """An action, the labels that led to it and reasons that a person understands.

    Degraded: something was missing that could have changed the action, a score or the account's strikes.
    """

    action: Action
    labels: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    is_degraded: bool = False


def decide(
    scores: Mapping[str, float],
    thresholds: Mapping[str, float | None],
    *,
    policy: Policy,
    review_from: Mapping[str, float | None] = NOTHING,
    strikes: int | None = 0,
    left: Left | None = None,
) -> Decision:
    """Flag each label whose score reaches its threshold, and do the hardest of what the policy asks for them.

    A label whose threshold is null (no threshold keeps its promise) is never flagged. A score from `review_from` up to
    the threshold is uncertain: the policy says what is then done, and people look at it. `strikes` are those of the
    account that have not expired: they lead up the policy's ladder. Where they are not known (None) the ladder is not
    climbed, and the decision says so. `left` is what remains of the daily budget that has the least: once it is spent,
    an action harder than `log` is recorded and not done.
    """
    flagged = [label for label, score in scores.items() if _reaches(score, thresholds.get(label))]
    uncertain = [n for n, score in scores.items() if n not in flagged and _reaches(score, review_from.get(n))]
    if not flagged and not uncertain:
        return Decision(Action.ALLOW, reasons=("no label reached its threshold",))
    actions = [policy.labels[label].action_after(strikes or 0) for label in flagged]
    actions += [policy.labels[label].uncertain for label in uncertain]
    action = max(actions, key=lambda a: a.severity)
    reasons = [_reason(label, scores[label], thresholds[label], policy=policy, strikes=strikes) for label in flagged]
    reasons += [f"{n}: score {scores[n]:.4f} is uncertain; action {policy.labels[n].uncertain}" for n in uncertain]
    is_degraded = strikes is None and any(policy.labels[label].ladder for label in flagged)
    decision = Decision(action, labels=tuple(flagged), reasons=tuple(reasons), is_degraded=is_degraded)
    return _within_budget(decision, left)


def decide_degraded(why: str, policy: Policy, *, left: Left | None = None) -> Decision:
    """Answer without a score, as the policy says and the daily budget allows, and name what was missing."""
    reasons = (f"not scored: {why}; the policy then says {policy.degraded}",)
    return _within_budget(Decision(policy.degraded, reasons=reasons, is_degraded=True), left)


def _within_budget(decision: Decision, left: Left | None) -> Decision:
    if left is None or left.actions > 0 or decision.action.severity <= Action.LOG.severity:
        return decision
    _, whose, most = left.limit
    spent = f"the {whose}'s {most} actions of today are spent: {decision.action} is only logged"
    return replace(decision, action=Action.LOG, reasons=(*decision.reasons, spent))


def _reaches(score: float, threshold: float | None) -> bool:
    return threshold is not None and score >= threshold


def _reason(label: str, score: float, threshold: float | None, *, policy: Policy, strikes: int | None) -> str:
    rule, after = policy.labels[label], ""
    if rule.ladder and strikes != 0:
        after = " as the account's strikes are not known" if strikes is None else f" after {strikes} strikes"
    found = f"{label} ({rule.definition}): score {score:.4f} reached the threshold {threshold:.4f}"
    return f"{found}; action {rule.action_after(strikes or 0)}{after}"
