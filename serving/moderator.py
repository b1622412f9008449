"""The walk of an event through the service: features, scores, decision, log, and only then the answer."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from serving.batcher import MicroBatcher
from serving.budget import Budget
from serving.canary import Canary
from serving.decide import Decision
from serving.decision_log import DecisionLog
from serving.live import Assessment, Event, Live
from serving.privacy import as_known
from serving.pushing import Pushes
from serving.queues import Assessed, Call, Queues, Scorers, assessing
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


class Judged(NamedTuple):
    """One event, the release that answers for it, in which role, and what that says."""

    event: Event
    live: Live
    role: Role
    assessment: Assessment


class Done(NamedTuple):
    """A request whose decisions are on disk; of its batch, the nanoseconds since 1970 at which each step ended."""

    records: list[Record]
    judged: list[Judged]
    assessed_ns: int
    decided_ns: int
    logged_ns: int


@dataclass(frozen=True)
class Champion:
    """A live release with its queues; work begun on it ends on it, also after a swap."""

    live: Live
    assess: Queues[list[Assessment]]
    decide: Queues[Done]


class Trial(NamedTuple):
    """A canary and the release that it lets answer."""

    canary: Canary
    live: Live
    assess: Queues[list[Assessment]]


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
        pushes: Pushes | None,
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
        self._lock = threading.Lock()
        self._acting: MicroBatcher[tuple[Call, list[Judged]], Done] = MicroBatcher(self._act, self._scorers.first)

    def install(self, detector: str, live: Live | None) -> None:
        """Make a release the champion, or none; requests in flight end on the one that they began with."""
        others = {name: champion for name, champion in self.champions.items() if name != detector}
        self.champions = {**others, **({detector: self._with_queues(live)} if live else {})}

    def _with_queues(self, live: Live) -> Champion:
        def act(assessed: list[Assessed]) -> list[Done]:
            return self._act([(one.asked.call, self._judged(live, one)) for one in assessed])

        return Champion(live, assessing(live, self._scorers), Queues(live, self._scorers, act))

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
        trial = self.trials.get(champion.live.spec.name)
        canarys = [trial.canary.answers(event.get("account_id")) for event in events] if trial else []
        if trial and any(canarys):
            judged = await self._try(trial, champion, list(zip(events, canarys, strict=True)), call=call)
            done = await self._acting((call, judged), len(events))
        else:
            done = await champion.decide(events, call)
        self._trace(done)
        self._count(done.records)
        if self._pushes:
            for record in done.records:
                self._pushes.put(record.table, record.event)
        if self._shadows:
            self._shadows.offer(champion.live.spec.name, call.request_id, call.caller, events)
        return done.records

    def known(self, live: Live, events: Sequence[Event]) -> list[Event]:
        """The events with the ids that the policy wants hashed: so the features know their entities, too."""
        return [as_known(event, live.policy.privacy, self._vault) for event in events]

    async def _try(
        self, trial: Trial, champion: Champion, events: Sequence[tuple[Event, bool]], *, call: Call
    ) -> list[Judged]:
        """Let the canary assess the events that are its, and the champion all others, or all where the canary fails."""
        tried = await _ask_canary(trial, [event for event, is_canarys in events if is_canarys], call=call)
        others = [event for event, is_canarys in events if tried is None or not is_canarys]
        mine, theirs = iter(tried or []), iter(await champion.assess(others, call) if others else [])
        return [
            Judged(event, trial.live, "canary", next(mine))
            if tried is not None and is_canarys
            else Judged(event, champion.live, self._role, next(theirs))
            for event, is_canarys in events
        ]

    def _judged(self, live: Live, assessed: Assessed) -> list[Judged]:
        pairs = zip(assessed.asked.events, assessed.assessments, strict=True)
        return [Judged(event, live, self._role, assessment) for event, assessment in pairs]

    def _act(self, requests: list[tuple[Call, list[Judged]]]) -> list[Done]:
        """Decide requests and put their decisions on disk, all at once; what one does counts for those after it."""
        assessed_ns = time.time_ns()
        with self._lock:
            counts = self._strikes.of([(one.live.policy, one.event) for _, judged in requests for one in judged])
            decided = [[self._record(one, counts, call=call) for one in judged] for call, judged in requests]
            decided_ns = time.time_ns()
            try:
                self.log.write([encode(record) for records in decided for record in records])
            except BaseException:  # nobody is answered, so nothing is done
                self._give_back(requests, decided)
                raise
            logged_ns = time.time_ns()
            self._strikes.add(counts.fresh)
        return [
            Done(records, judged, assessed_ns, decided_ns, logged_ns)
            for records, (_, judged) in zip(decided, requests, strict=True)
        ]

    def _give_back(self, requests: list[tuple[Call, list[Judged]]], decided: list[list[Record]]) -> None:
        """Return to the budgets what decisions took that were not logged."""
        for (_, judged), records in zip(requests, decided, strict=True):
            for one, record in zip(judged, records, strict=True):
                if record.action.severity > Action.LOG.severity:
                    self._budget.give_back(one.live.limits, record.at_us)

    def _trace(self, done: Done) -> None:
        """Say when the batches in which a request was scored and decided were how far."""
        if not self._tracing.is_on:
            return
        batches = {(one.live.spec.name, one.live.release, one.role, one.assessment.timing) for one in done.judged}
        for detector, release, role, timing in batches:
            if timing is None:  # there were no features, so there are no scores
                continue
            facts: Attributes = {"mews.detector": detector, "mews.release": release, "mews.role": role}
            self._tracing.past("features", timing.begun_ns, timing.read_ns, facts)
            self._tracing.past("score", timing.read_ns, timing.scored_ns, {**facts, "mews.batch": timing.num_events})
        self._tracing.past("decide", done.assessed_ns, done.decided_ns)
        self._tracing.past("log", done.decided_ns, done.logged_ns)

    def _record(self, judged: Judged, counts: Counts, *, call: Call) -> Record:
        event, live, role, assessed = judged
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
            role=role,
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
            actions_left=now.left.actions if now.left else None,
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
        now = Circumstances(thresholds, strikes, self._budget.left(live.limits, assessed.at_us))
        decision = verdict(live, assessed.scores, why_not=assessed.why_not, now=now)
        if decision.action.severity > Action.LOG.severity:
            now = replace(now, left=self._budget.take(live.limits, assessed.at_us))
            if now.left and now.left.actions <= 0:
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


async def _ask_canary(trial: Trial, events: Sequence[Event], *, call: Call) -> Sequence[Assessment] | None:
    """What the canary says; nothing where it fails or takes too long, so that the champion answers."""
    try:
        async with asyncio.timeout(_TRIAL_S):
            return await trial.assess(events, call)
    except Exception:  # noqa: BLE001  # an edge: whatever a canary does, it is answered and counted
        trial.canary.failed(len(events))
        return None
