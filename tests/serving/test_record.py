import msgspec
import pytest

from serving.record import SCHEMA, UnknownSchema, decode, encode
from tests.serving.decisions import record, request

# As the first version wrote it.
SCHEMA_1 = {
    "decision_id": "dec_0199a1b2c3d4" + "0" * 20,
    "at_us": 1_760_000_000_000_000,
    "request_id": "r",
    "caller": "tests",
    "detector": "content",
    "release": "d" * 64,
    "policy": {"name": "content", "version": 1, "digest": "p" * 64},
    "role": "champion",
    "table": "requests",
    "event": {"event_id": "e1", "event_us": 1_760_000_000_000_000, "arrived_us": 1_760_000_000_000_000},
    "text": "gAAAA",
    "features": {"values": {}, "missing": [], "expired": []},
    "scores": {"spam": 0.25},
    "thresholds": {"spam": None},
    "labels": [],
    "action": "allow",
    "reasons": ["no label reached its threshold"],
    "degraded": False,
    "actions_left": 9,
    "schema": 1,
}


def test_a_record_of_the_first_schema_is_upgraded_and_nothing_else_in_it_changes() -> None:
    upgraded = decode(msgspec.json.encode(SCHEMA_1))

    policy = {"name": "content", "version": 1, "digest": "p" * 64, "hotfix": ""}
    added = {"policy": policy, "text_digest": None, "strikes": 0, "ended_early": None, "schema": SCHEMA}
    assert msgspec.to_builtins(upgraded) == SCHEMA_1 | added


def test_a_record_of_this_schema_is_read_as_it_was_written() -> None:
    written = record(request())

    assert decode(encode(written)) == written


def test_a_record_of_a_newer_schema_is_refused_by_its_number() -> None:
    with pytest.raises(UnknownSchema, match=f"record.schema is {SCHEMA + 1}; this version reads up to {SCHEMA}"):
        decode(msgspec.json.encode(SCHEMA_1 | {"schema": SCHEMA + 1}))
