"""What a policy promises and what is done when it is broken: the part of the contract that a policy person reads."""

import re
from enum import StrEnum
from itertools import pairwise
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

_EVENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MOST_STRIKE_DAYS = 3650


class Contract(BaseModel):
    """A value that is checked once, where it enters, and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Action(StrEnum):
    """What is done about an event, mildest first; the order is the ladder."""

    ALLOW = "allow"
    LOG = "log"
    WARN = "warn"
    THROTTLE = "throttle"
    HOLD = "hold"
    BLOCK = "block"
    SUSPEND = "suspend"

    @property
    def severity(self) -> int:
        """Position on the ladder: 0 is the mildest."""
        return _LADDER[self]


_LADDER = {action: place for place, action in enumerate(Action)}


class Severity(StrEnum):
    """How bad a violation is; for people, who look at the worst first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Promise(Contract):
    """A bound that holds on the population with the stated confidence, or is answered "infeasible".

    `benign_fpr`: of events without the label, at most `limit` are flagged.
    `precision`: of flagged events, at least `limit` have the label.
    `recall`: of events with the label, at least `limit` are flagged.

    `min_recall` asks beside a `benign_fpr` that at least this share of events with the label is flagged. `per` names a
    column: the promise then holds in each of its values at once, with a threshold for each.
    """

    kind: Literal["benign_fpr", "precision", "recall"] = "benign_fpr"
    limit: float = 0.01
    confidence: float = 0.95
    min_recall: float | None = None
    per: str | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for field in ("limit", "confidence", "min_recall"):
            value = getattr(self, field)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"promise.{field} is {value}; it must lie strictly between 0 and 1")
        if self.min_recall is not None and self.kind != "benign_fpr":
            raise ValueError(f"promise.min_recall is set beside {self.kind!r}; it can only stand beside 'benign_fpr'")
        return self

    def each_kind(self) -> "list[Promise]":
        """What is promised, one kind at a time: a `min_recall` is a promise of its own."""
        if self.min_recall is None:
            return [self]
        alone = self.model_copy(update={"min_recall": None})
        return [alone, alone.model_copy(update={"kind": "recall", "limit": self.min_recall})]


class Step(Contract):
    """A rung of a ladder: from this many strikes on, this is done."""

    strikes: int
    action: Action


class LabelPolicy(Contract):
    """One label of a policy: what it means, how bad it is, and what is done when it is found.

    `examples` are ids of events that a person may look up, never their text. `uncertain` is done in the band below the
    threshold that is sized to the reviewers. `ladder` is what is done instead of `action` about an account that has
    strikes already.
    """

    definition: str
    severity: Severity = Severity.MEDIUM
    examples: list[str] = []
    action: Action = Action.HOLD
    uncertain: Action = Action.ALLOW
    ladder: list[Step] = []

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if wrong := [example for example in self.examples if not _EVENT_ID.fullmatch(example)]:
            raise ValueError(f"examples has a value of {len(wrong[0])} characters; ids must match {_EVENT_ID.pattern}")
        if self.uncertain.severity > self.action.severity:
            raise ValueError(f"uncertain is {self.uncertain}; it must not be harder than action, {self.action}")
        rungs = [(0, self.action.severity), *((step.strikes, step.action.severity) for step in self.ladder)]
        for (strikes, severity), (more, harder) in pairwise(rungs):
            if more <= strikes or harder <= severity:
                raise ValueError(f"ladder has a step at {more} strikes; each needs more strikes and a harder action")
        return self

    def action_after(self, strikes: int) -> Action:
        """What is done about an account with this many strikes that have not expired."""
        reached = [step.action for step in self.ladder if step.strikes <= strikes]
        return reached[-1] if reached else self.action


class Privacy(Contract):
    """What is kept of the people whose events a policy judges.

    A text that is not kept is read once and forgotten: it is neither logged nor trained on. The columns in `hashed` are
    replaced by a keyed hash before features are read, so the lake knows those entities by it alone. After
    `retention_days` decisions go, and the events of a table when every policy that reads it lets them; null: never. An
    account whose signup went that way is one without an age, a plan and a domain from the next rebuild on, however
    active it is: where these features matter, keep for longer than accounts live. Training sets, runs and searches
    keep their rows; whoever wants them gone deletes their folders.
    """

    keeps_text: bool = True
    hashed: list[Literal["account_id", "ip", "card_id", "merchant_id", "device_id"]] = []
    retention_days: int | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.retention_days is not None and not 1 <= self.retention_days <= 3650:
            raise ValueError(f"policy.privacy.retention_days is {self.retention_days}; it must lie in 1 to 3650")
        return self


class Policy(Contract):
    """A written rule with a version: what is done about what was found. Sealed and signed as a bundle of its own,
    so that an action can change without a new model; what a detector promises is sealed with its release.

    `degraded` is the action when a score cannot be had (features or model missing); it is an answer of its own,
    never a default score. An action harder than `log` is a strike against its account for `strike_days`.
    """

    name: str
    version: int = 1
    labels: dict[str, LabelPolicy]
    degraded: Action = Action.ALLOW
    max_actions_per_day: int = 10_000
    strike_days: int = 90
    when_promise_breaks: Literal["flag", "expire"] = "flag"
    privacy: Privacy = Privacy()

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not self.labels:
            raise ValueError(f"policy.labels of {self.name!r} is empty; a policy needs at least one label")
        for field, least, most in (
            ("version", 1, None),
            ("max_actions_per_day", 0, None),
            ("strike_days", 1, _MOST_STRIKE_DAYS),
        ):
            value = getattr(self, field)
            if value < least or (most is not None and value > most):
                limit = f"at least {least}" if most is None else f"in {least}..{most}"
                raise ValueError(f"policy.{field} is {value}; it must be {limit}")
        return self
