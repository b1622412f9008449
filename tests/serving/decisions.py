"""Decisions as the service logs them, without a service."""

import time
from pathlib import Path
from typing import Any

import msgspec

from serving.record import Features, PolicyRef, Record, encode, new_id
from serving.segments import Segment
from serving.vault import Vault
from training.policy import Action

NOW_US = time.time_ns() // 1000


def request(number: int = 1, *, event_us: int = NOW_US, **columns: Any) -> dict[str, Any]:
    """A request without its text."""
    return {
        "event_id": f"r{number}",
        "event_us": event_us,
        "arrived_us": max(event_us, NOW_US),
        "account_id": f"a{number % 7}",
        "ip": None,
        "kind": "prompt",
        "num_tokens": 3,
    } | columns


def record(event: dict[str, Any], *, vault: Vault | None = None, text: str | None = None, **fields: Any) -> Record:
    """A decision about a request."""
    decided = Record(
        decision_id=new_id(),
        at_us=NOW_US,
        request_id="request",
        caller="tests",
        detector="content",
        release="d" * 64,
        policy=PolicyRef("content", 1, "p" * 64),
        role="champion",
        table="requests",
        event=event,
        text=vault.seal(text) if vault and text is not None else None,
        features=Features(),
        scores={"spam": 0.1 + 1e-17},
        thresholds={"spam": 0.5},
        labels=[],
        action=Action.ALLOW,
        reasons=["no label reached its threshold"],
        degraded=False,
        actions_left=10,
        strikes=0,
        ended_early=None,
        text_digest=vault.digest(text) if vault and text is not None else None,
    )
    return msgspec.structs.replace(decided, **fields)


def log(folder: Path, *records: Record) -> Path:
    """A sealed segment that holds them, begun when the first was decided."""
    folder.mkdir(parents=True, exist_ok=True)
    segment = Segment(folder, begun_us=records[0].at_us)
    segment.write([encode(one) for one in records])
    segment.seal()
    return segment.path.with_suffix(".sealed")
