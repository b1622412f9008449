"""One event's decision from a live release: as it happens, and again from what was logged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.decide import Decision, Left, decide, decide_degraded
from serving.live import Live
from serving.record import Record
from serving.vault import Vault

TEXT = "text"  # the one column of the lake's tables that holds what a person wrote


@dataclass(frozen=True)
class Circumstances:
    """What a decision depends on beside scores and policy; `strikes` are null where they could not be read."""

    thresholds: Mapping[str, float | None]
    strikes: int | None
    left: Left | None


def verdict(live: Live, scores: dict[str, float] | None, *, why_not: str, now: Circumstances) -> Decision:
    """The one decide, with the degraded answer where there is no score."""
    if scores is None:
        return decide_degraded(why_not, live.policy, left=now.left)
    return decide(
        scores,
        now.thresholds,
        policy=live.policy,
        review_from=live.review_from,
        strikes=now.strikes,
        left=now.left,
    )


def replay(live: Live, record: Record, vault: Vault | None) -> dict[str, Any]:
    """Score and decide a logged event again with its release and policy, from what was known then."""
    text = vault.open(record.text) if vault and record.text else None
    if live.spec.text and text is None:
        return {"is_possible": False, "why": "the text was not kept"}
    row = {**record.event, **({TEXT: text} if text is not None else {}), **record.features.values}
    scores = None if record.scores is None else live.score([row])[0]
    left = None if record.actions_left is None else Left(record.actions_left, live.limits[0])
    now = Circumstances(live.thresholds(row), record.strikes, left)
    decision = verdict(live, scores, why_not="it was not scored then either", now=now)
    return {
        "is_possible": True,
        "is_identical": scores == record.scores and decision.action == record.action,
        "scores": scores,
        "action": decision.action,
    }
