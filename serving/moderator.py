"""The walk of an event through the service: features, scores, decision, log, and only then the answer."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

from serving.backlog import Backlog
from serving.batcher import MicroBatcher
from serving.budget import Budget
from serving.canary import Canary
from serving.decide import Decision
from serving.decision_log import DecisionLog
from serving.live import Assessment, Event, Glanced, Live
from serving.privacy import as_known
from serving.record import Record, Role, encode, new_id
from serving.shadow import Shadows
from serving.strikes import Counts, Strikes
from serving.tracing import Attributes, Telemetry
from serving.vault import Vault
from serving.verdict import TEXT, Circumstances, verdict
from training.policy import Action

_TRIAL_S = 0.25


class NotServed(Exception):
    """No approved release of this detector is in memory."""


@dataclass(frozen=True)
class Call:
    """Who asks, and under which id it is traced."""

    request_id: str
    caller: str


class Scorers(NamedTuple):
    """The threads that score: one, and two for what the first member of a cascade does not answer alone.

    A release that encodes every event has `num_encoding` threads to itself, each of which encodes on one core.
    """

    first: Executor
    whole: Executor
    long: Executor
    encoding: Executor
    num_encoding: int = 1

    @classmethod
    def of_cores(cls) -> "Scorers":
        """As many threads that encode as there are cores."""
        num_cores = os.cpu_count() or 1
        first, whole, long = (ThreadPoolExecutor(1, name) for name in ("scorer", "whole", "long"))
        return cls(first, whole, long, ThreadPoolExecutor(num_cores, "encoding"), num_cores)


@dataclass(frozen=True)
class Champion:
    """A live release and the queues before it; work begun on it ends on it, also after a swap."""

    live: Live
    _first: MicroBatcher[Event, Glanced]
    _whole: MicroBatcher[Glanced, Assessment]
    _long: MicroBatcher[Glanced, Assessment]

    @classmethod
    def of(cls, live: Live, scorers: Scorers, *, may_run_inline: bool = True) -> "Champion":
        """Put queues before a release; what reads features waits for a store and never runs inline."""
        if live.encodes_all:
            first = MicroBatcher(live.glance, scorers.encoding, num_threads=scorers.num_encoding)
        else:
            first = MicroBatcher(live.glance, scorers.first, is_pure=may_run_inline and not live.inputs)
        return cls(live, first, MicroBatcher(live.settle, scorers.whole), MicroBatcher(live.settle, scorers.long))

    async def assess(self, events: Sequence[Event]) -> Sequence[Assessment]:
        """What the release says of these events.

        Who ends early in a cascade waits for nobody who does not, and no short text for a long one, which may take a
        hundred times as long.
        """
        glanced = await self._first(events)
        others = [one for one in glanced if one.row is not None]
        lane = self._long if any(self.live.is_long(one.row) for one in others if one.row is not None) else self._whole
        settled = iter(await lane(others) if others else [])
        return [one.assessment if one.row is None else next(settled) for one in glanced]


class Trial(NamedTuple):
    """A canary and the release that it lets answer."""

    canary: Canary
    challenger: Champion


class Assessed(NamedTuple):
    """Which release assessed an event, and in which role."""

    live: Live
    role: Role
    assessment: Assessment


class Acted(NamedTuple):
    """What was done already: today under each policy, and lately against each account."""

    budget: Budget
    strikes: Strikes


class Moderator:
    """Decides events with whatever is champion at that moment. `champions` is read once per call and replaced whole."""

    def __init__(
        self,
        *,
        log: DecisionLog,
        vault: Vault | None,
        pushes: Backlog[tuple[str, Event]] | None,
        telemetry: Telemetry,
        acted: Acted,
        shadows: Shadows | None = None,
        role: Role = "champion",
    ) -> None:
        self.log = log
        self.metrics, self._tracing = telemetry
        self.champions: Mapping[str, Champion] = {}
        self.trials: Mapping[str, Trial] = {}
        self._shadows, self._role = shadows, role
        self._vault, self._pushes = vault, pushes
        self._scorers = Scorers.of_cores()
        self._budget, self._strikes = acted

    def install(self, detector: str, live: Live | None) -> None:
        """Make a release the champion, or none; requests in flight end on the one that they began with."""
        others = {name: champion for name, champion in self.champions.items() if name != detector}
        batched = live and {detector: Champion.of(live, self._scorers)}
        self.champions = {**others, **(batched or {})}

    def let_try(self, trials: Mapping[str, Trial]) -> None:
        """Let these canaries answer for their accounts, and no others."""
        self.trials = trials

    def champion(self, detector: str) -> Champion:
        """What answers for a detector now; raises NotServed."""
        try:
            return self.champions[detector]
        except KeyError:
            served = ", ".join(sorted(self.champions)) or "none"
            raise NotServed(f"no approved release of this detector is served; served now: {served}") from None

    async def decide(self, champion: Champion, events: Sequence[Event], *, call: Call) -> list[Record]:
        """Decide events of the champion's table; on return the decisions are on disk."""
        events = self.known(champion.live, events)
        with self.log.coming():
            assessed = list(zip(events, await self._assess(champion, events), strict=True))
            self._trace(assessed)
            with self._tracing.span("decide"):
                counts = await self._strikes.of([(by.live.policy, event) for event, by in assessed])
                records = [self._record(event, by, counts, call=call) for event, by in assessed]
        with self._tracing.span("log"):
            await self.log.append([encode(record) for record in records])
        await self._strikes.add(counts.fresh)
        self._count(records)
        if self._pushes:
            for event in events:
                self._pushes.put((champion.live.spec.events, event))
        if self._shadows:
            self._shadows.offer(champion.live.spec.name, call.request_id, call.caller, events)
        return records

    def known(self, live: Live, events: Sequence[Event]) -> list[Event]:
        """The events with the ids that the policy wants hashed: so the features know their entities, too."""
        return [as_known(event, live.policy.privacy, self._vault) for event in events]

    async def _assess(self, champion: Champion, events: Sequence[Event]) -> list[Assessed]:
        """Let the canary assess the events of its accounts, if there is one, and the champion all others."""
        trial = self.trials.get(champion.live.spec.name)
        canarys = {at for at, e in enumerate(events) if trial and trial.canary.answers(e.get("account_id"))}
        tried = await _try(trial, [events[at] for at in sorted(canarys)]) if trial and canarys else None
        if trial is None or tried is None:
            return [Assessed(champion.live, self._role, a) for a in await champion.assess(events)]
        others = [event for at, event in enumerate(events) if at not in canarys]
        theirs, mine = iter(await champion.assess(others) if others else []), iter(tried)
        return [
            Assessed(trial.challenger.live, "canary", next(mine))
            if at in canarys
            else Assessed(champion.live, self._role, next(theirs))
            for at in range(len(events))
        ]

    def _trace(self, assessed: Sequence[tuple[Event, Assessed]]) -> None:
        """Say when the batches in which these events were scored had their features and their scores."""
        if not self._tracing.is_on:
            return
        batches = {(by.live.spec.name, by.live.release, by.role, by.assessment.timing) for _, by in assessed}
        for detector, release, role, timing in batches:
            if timing is None:  # there were no features, so there are no scores
                continue
            facts: Attributes = {"mews.detector": detector, "mews.release": release, "mews.role": role}
            self._tracing.past("features", timing.begun_ns, timing.read_ns, facts)
            self._tracing.past("score", timing.read_ns, timing.scored_ns, {**facts, "mews.batch": timing.num_events})

    def _record(self, event: Event, by: Assessed, counts: Counts, *, call: Call) -> Record:
        live, assessed = by.live, by.assessment
        decision, now = self._decision(live, event, assessed, strikes=counts.of(live.policy, event))
        text = event.get(TEXT)
        record = Record(
            decision_id=new_id(),
            at_us=assessed.at_us,
            request_id=call.request_id,
            caller=call.caller,
            detector=live.spec.name,
            release=live.release,
            policy=live.policy_ref,
            role=by.role,
            table=live.spec.events,
            event={name: value for name, value in event.items() if name != TEXT},
            text=self._sealed(text, live) if text is not None else None,
            features=assessed.features,
            scores=assessed.scores,
            thresholds=dict(now.thresholds),
            labels=list(decision.labels),
            action=decision.action,
            reasons=list(decision.reasons),
            degraded=decision.is_degraded,
            actions_left=now.actions_left,
            text_digest=self._vault.digest(text) if self._vault and text is not None else None,
            strikes=now.strikes,
            ended_early=assessed.ended_early,
        )
        counts.note(live.policy, record)
        return record

    def _decision(
        self, live: Live, event: Event, assessed: Assessment, *, strikes: int | None
    ) -> tuple[Decision, Circumstances]:
        """Decide with what is left of the budget; another worker may have taken the last action meanwhile."""
        thresholds = live.thresholds({**event, **assessed.features.values})
        now = Circumstances(thresholds, strikes, self._budget.left(live.policy, assessed.at_us))
        decision = verdict(live, assessed.scores, why_not=assessed.why_not, now=now)
        if decision.action.severity > Action.LOG.severity:
            now = replace(now, actions_left=self._budget.take(live.policy, assessed.at_us))
            if now.actions_left is not None and now.actions_left <= 0:
                decision = verdict(live, assessed.scores, why_not=assessed.why_not, now=now)
        return decision, now

    def _sealed(self, text: str, live: Live) -> str | None:
        return self._vault.seal(text) if self._vault and live.policy.privacy.keeps_text else None

    def _count(self, records: list[Record]) -> None:
        if records and (trial := self.trials.get(records[0].detector)):
            trial.canary.count((r.role == "canary", r.action.severity > Action.LOG.severity) for r in records)
        for record in records:
            self.metrics.decisions.labels(record.detector, record.role, record.action).inc()
            if record.degraded:
                self.metrics.degraded.labels(record.detector).inc()


async def _try(trial: Trial, events: Sequence[Event]) -> Sequence[Assessment] | None:
    """What the canary says; nothing where it fails or takes too long, so that the champion answers."""
    try:
        async with asyncio.timeout(_TRIAL_S):
            return await trial.challenger.assess(events)
    except Exception:  # noqa: BLE001  # an edge: whatever a canary does, it is answered and counted
        trial.canary.failed(len(events))
        return None
