"""The walk of an event through the service: features, scores, decision, log, and only then the answer."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from serving.backlog import Backlog
from serving.batcher import MicroBatcher
from serving.budget import Budget
from serving.decide import Decision, decide, decide_degraded
from serving.decision_log import DecisionLog
from serving.live import Assessment, Event, Live
from serving.metrics import Metrics
from serving.privacy import as_known
from serving.record import Record, encode, new_id
from serving.vault import Vault

TEXT = "text"  # the one column of the lake's tables that holds what a person wrote


class NotServed(Exception):
    """No approved release of this detector is in memory."""


@dataclass(frozen=True)
class Call:
    """Who asks, and under which id it is traced."""

    request_id: str
    caller: str


@dataclass(frozen=True)
class Champion:
    """A live release and the queue before it; work begun on it ends on it, also after a swap."""

    live: Live
    batcher: MicroBatcher[Event, Assessment]


class Moderator:
    """Decides events with whatever is champion at that moment. `champions` is read once per call and replaced whole."""

    def __init__(
        self,
        *,
        log: DecisionLog,
        vault: Vault | None,
        pushes: Backlog[tuple[str, Event]] | None,
        executor: Executor,
        metrics: Metrics,
    ) -> None:
        self.log, self.metrics = log, metrics
        self.champions: Mapping[str, Champion] = {}
        self._vault, self._pushes, self._executor = vault, pushes, executor
        self._budget = Budget()

    def install(self, detector: str, live: Live | None) -> None:
        """Make a release the champion, or none; requests in flight end on the one that they began with."""
        others = {name: champion for name, champion in self.champions.items() if name != detector}
        batched = live and {detector: Champion(live, MicroBatcher(live.assess, self._executor))}
        self.champions = {**others, **(batched or {})}

    def champion(self, detector: str) -> Champion:
        """What answers for a detector now; raises NotServed."""
        try:
            return self.champions[detector]
        except KeyError:
            served = ", ".join(sorted(self.champions)) or "none"
            raise NotServed(f"no approved release of this detector is served; served now: {served}") from None

    async def decide(self, champion: Champion, events: Sequence[Event], *, call: Call) -> list[Record]:
        """Decide events of the champion's table; on return the decisions are on disk."""
        live = champion.live
        events = [as_known(event, live.policy.privacy, self._vault) for event in events]
        assessments = await champion.batcher(list(events))
        records = [self._record(live, e, a, call=call) for e, a in zip(events, assessments, strict=True)]
        await self.log.append([encode(record) for record in records])
        self._count(records)
        if self._pushes:
            for event in events:
                self._pushes.put((live.spec.events, event))
        return records

    def _record(self, live: Live, event: Event, assessed: Assessment, *, call: Call) -> Record:
        actions_left = self._budget.left(live.policy, assessed.at_us)
        decision = verdict(live, assessed.scores, why_not=assessed.why_not, actions_left=actions_left)
        self._budget.spend(live.policy, decision.action)
        text = event.get(TEXT)
        return Record(
            decision_id=new_id(),
            at_us=assessed.at_us,
            request_id=call.request_id,
            caller=call.caller,
            detector=live.spec.name,
            release=live.release,
            policy=live.policy_ref,
            role="champion",
            table=live.spec.events,
            event={name: value for name, value in event.items() if name != TEXT},
            text=self._vault.seal(text)
            if self._vault and live.policy.privacy.keeps_text and text is not None
            else None,
            features=assessed.features,
            scores=assessed.scores,
            thresholds=live.thresholds,
            labels=list(decision.labels),
            action=decision.action,
            reasons=list(decision.reasons),
            degraded=decision.is_degraded,
            actions_left=actions_left,
            text_digest=self._vault.digest(text) if self._vault and text is not None else None,
        )

    def _count(self, records: list[Record]) -> None:
        for record in records:
            self.metrics.decisions.labels(record.detector, record.role, record.action).inc()
            if record.degraded:
                self.metrics.degraded.labels(record.detector).inc()


def verdict(live: Live, scores: dict[str, float] | None, *, why_not: str, actions_left: int | None) -> Decision:
    """The one decide, with the degraded answer where there is no score."""
    if scores is None:
        return decide_degraded(why_not, live.policy)
    return decide(scores, live.thresholds, policy=live.policy, actions_left=actions_left)


def replay(live: Live, record: Record, vault: Vault | None) -> dict[str, Any]:
    """Score and decide a logged event again with its release and policy, from what was known then."""
    text = vault.open(record.text) if vault and record.text else None
    if live.spec.text and text is None:
        return {"is_possible": False, "why": "the text was not kept"}
    row = {**record.event, **({TEXT: text} if text is not None else {}), **record.features.values}
    scores = None if record.scores is None else live.score([row])[0]
    decision = verdict(live, scores, why_not="it was not scored then either", actions_left=record.actions_left)
    return {
        "is_possible": True,
        "is_identical": scores == record.scores and decision.action == record.action,
        "scores": scores,
        "action": decision.action,
    }
