"""A decision as it is logged: enough to answer why, to replay it bit for bit and to become events of the lake."""

import os
import random
import re
import time
from typing import Any, Literal

import msgspec

from training.policy import Action

_random = random.Random(os.urandom(32))  # the kernel's own would hand the interpreter to another thread at each call
DECISION_ID = re.compile(r"dec_[0-9a-f]{32}\Z")
Value = float | str | None


class PolicyRef(msgspec.Struct, frozen=True):
    """Which written rule was applied."""

    name: str
    version: int
    digest: str


class Features(msgspec.Struct, frozen=True):
    """What was known about the event's entities when it was decided."""

    values: dict[str, Value] = {}
    missing: list[str] = []
    expired: list[str] = []


Role = Literal["champion", "canary", "challenger"]  # the first two acted; a challenger only watched


class Record(msgspec.Struct, frozen=True):
    """One decision; `text` is encrypted or absent, and never in `event`."""

    decision_id: str
    at_us: int
    request_id: str
    caller: str
    detector: str
    release: str
    policy: PolicyRef
    role: Role
    table: str
    event: dict[str, Any]
    text: str | None
    features: Features
    scores: dict[str, float] | None
    thresholds: dict[str, float | None]
    labels: list[str]
    action: Action
    reasons: list[str]
    degraded: bool
    actions_left: int | None
    schema: int = 1


class Answer(msgspec.Struct, frozen=True):
    """What a caller learns of a decision."""

    decision_id: str
    event_id: str
    detector: str
    action: Action
    labels: list[str]
    scores: dict[str, float] | None
    reasons: list[str]
    degraded: bool
    release: str
    policy: PolicyRef
    missing: list[str]
    expired: list[str]


def answer(record: Record) -> Answer:
    """The part of a record that is answered."""
    return Answer(
        decision_id=record.decision_id,
        event_id=record.event["event_id"],
        detector=record.detector,
        action=record.action,
        labels=record.labels,
        scores=record.scores,
        reasons=record.reasons,
        degraded=record.degraded,
        release=record.release,
        policy=record.policy,
        missing=record.features.missing,
        expired=record.features.expired,
    )


def fresh_id() -> str:
    """An id that occurs once; it names and does not protect."""
    return f"{_random.getrandbits(128):032x}"


def new_id() -> str:
    """A decision id that begins with its time in milliseconds, so that it can be found without an index."""
    return f"dec_{time.time_ns() // 1_000_000:012x}{_random.getrandbits(80):020x}"


def time_of(decision_id: str) -> int:
    """The microsecond in which an id was made."""
    return int(decision_id[4:16], 16) * 1000


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode
