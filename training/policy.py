"""What a policy promises and what is done when it is broken: the part of the contract that a policy person reads."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator


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
        return list(Action).index(self)


class Promise(Contract):
    """A bound that holds on the population with the stated confidence, or is answered "infeasible".

    `benign_fpr`: of events without the label, at most `limit` are flagged.
    `precision`: of flagged events, at least `limit` have the label.
    """

    kind: Literal["benign_fpr", "precision"] = "benign_fpr"
    limit: float = 0.01
    confidence: float = 0.95

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for field in ("limit", "confidence"):
            value = getattr(self, field)
            if not 0 < value < 1:
                raise ValueError(f"promise.{field} is {value}; it must lie strictly between 0 and 1")
        return self


class LabelPolicy(Contract):
    """One label of a policy: what it means and what is done when it is found."""

    definition: str
    action: Action = Action.HOLD


class Privacy(Contract):
    """What is kept of the people whose events a policy judges.

    A text that is not kept is read once and forgotten: it is neither logged nor trained on. The columns in `hashed` are
    replaced by a keyed hash before features are read, so the lake knows those entities by it alone. After
    `retention_days` decisions go, and the events of a table when every policy that reads it lets them; null: never.
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
    never a default score.
    """

    name: str
    version: int = 1
    labels: dict[str, LabelPolicy]
    degraded: Action = Action.ALLOW
    max_actions_per_day: int = 10_000
    privacy: Privacy = Privacy()

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.version < 1:
            raise ValueError(f"policy.version is {self.version}; it must be at least 1")
        if not self.labels:
            raise ValueError(f"policy.labels of {self.name!r} is empty; a policy needs at least one label")
        if self.max_actions_per_day < 0:
            raise ValueError(f"policy.max_actions_per_day is {self.max_actions_per_day}; it must be at least 0")
        return self
