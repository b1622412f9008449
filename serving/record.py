"""A decision as it is logged: enough to answer why, to replay it bit for bit and to become events of the lake.

Every record names the schema it was written with. `decode` upgrades an older one step by step, each step a function
named for where it starts, and refuses a newer one: what this code does not know it must not drop.
"""

import os
import random
import re
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from training.policy import Action

_random = random.Random(os.urandom(32))  # the kernel's own would hand the interpreter to another thread at each call
DECISION_ID = re.compile(r"dec_[0-9a-f]{32}\Z")
Value = float | str | None
SCHEMA = 5


class UnknownSchema(ValueError):
    """A record was written by a newer version than this one."""


class PolicyRef(msgspec.Struct, frozen=True):
    """Which written rule was applied."""

    name: str
    version: int
    digest: str
    hotfix: str = ""  # the digest of what changed a threshold under it, if anything did


class Features(msgspec.Struct, frozen=True):
    """What was known about the event's entities when it was decided."""

    values: dict[str, Value] = {}
    missing: list[str] = []
    expired: list[str] = []


Role = Literal["champion", "canary", "challenger"]  # the first two acted; a challenger only watched


class Record(msgspec.Struct, frozen=True):
    """One decision; `text` is encrypted or absent, and never in `event`.

    `text_digest` is keyed; it tells whether a text found elsewhere is the one that was judged.
    """

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
    text_digest: str | None
    strikes: int | None  # None: the store was silent
    ended_early: bool | None  # whether a cascade's first member answered alone; None: the release is no cascade
    schema: int = SCHEMA


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


def decode(data: bytes) -> Record:
    """Read a record of this schema or an older one; raises UnknownSchema for a newer one."""
    schema = _read_schema(data).schema
    if schema == SCHEMA:
        return _decode(data)
    if schema > SCHEMA:
        raise UnknownSchema(f"record.schema is {schema}; this version reads up to {SCHEMA}")
    fields = msgspec.json.decode(data)
    for older in range(schema, SCHEMA):
        fields = _UPGRADES[older](fields) | {"schema": older + 1}
    return msgspec.convert(fields, Record)


def from_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 did not say which text was judged, so a text found elsewhere cannot be told to be it."""
    return fields | {"text_digest": None}


def from_2(fields: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 knew no strikes: no policy had a ladder, so none counted."""
    return fields | {"strikes": fields.get("strikes", 0)}


def from_3(fields: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 knew no cascade: every score came from the whole network."""
    return fields | {"ended_early": None}


def from_4(fields: dict[str, Any]) -> dict[str, Any]:
    """Schema 4 always knew the strikes."""
    return fields


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: from_1, 2: from_2, 3: from_3, 4: from_4}


class _Schema(msgspec.Struct):
    schema: int


_read_schema = msgspec.json.Decoder(_Schema).decode
_decode = msgspec.json.Decoder(Record).decode
