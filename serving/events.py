"""Events at the door: the lake's tables as JSON decoders, with errors that name field and limit and echo nothing."""

import re
import time
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal

import msgspec

from feature_repo.tables import EVENT_TABLES, Column
from serving.record import fresh_id

MAX_TEXT = 200_000  # characters; a request body holds 1 MiB
MAX_EVENTS = 512
_TYPES: dict[str, type] = {"VARCHAR": str, "BIGINT": int, "INTEGER": int, "DOUBLE": float, "TINYINT": int}
_MADE_HERE = {"arrived_us"}
_OPTIONAL = {"event_id", "event_us", "num_tokens"}
_AHEAD_US = 300_000_000  # by which a caller's clock may be ahead; what lies ahead is taken as happening now
_DEFAULTS = {"requests": {"kind": "prompt"}, "accounts": {"kind": "daily"}, "payments": {}}


class InvalidEvent(ValueError):
    """An event breaks its table's contract; the message names the field, what was found and the limit."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/decisions`: one detector, and one event or many."""

    detector: str
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    events: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_body = msgspec.json.Decoder(Body).decode


def parse_body(data: bytes) -> tuple[str, list[msgspec.Raw]]:
    """The detector's name and the undecoded events of a request."""
    body = parse(_body, data)
    if (body.event is msgspec.UNSET) == (body.events is msgspec.UNSET):
        raise InvalidEvent("give either `event` or `events`")
    events = [body.event] if isinstance(body.event, msgspec.Raw) else body.events
    assert isinstance(events, list)
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InvalidEvent(f"`events` holds {len(events)}; it must hold 1 to {MAX_EVENTS}, or go to /v1/bulk")
    return body.detector, events


def parse_events(table: str, raw: Sequence[bytes | msgspec.Raw]) -> list[dict[str, Any]]:
    """Events of a table as plain columns, completed with an id and times."""
    now_us = time.time_ns() // 1000
    events = []
    for index, data in enumerate(raw):
        event = msgspec.structs.asdict(parse(_decoder(table).decode, data, at=f"events[{index}]"))
        if (event["event_us"] or 0) > now_us + _AHEAD_US:
            raise InvalidEvent(f"`events[{index}].event_us` lies more than {_AHEAD_US} microseconds in the future")
        events.append(_complete(event, now_us))
    return events


def parse(decode: Any, data: bytes | msgspec.Raw, *, at: str = "") -> Any:
    """Decode, or say what is wrong without repeating what was sent."""
    try:
        return decode(data)
    except RecursionError as error:
        raise InvalidEvent("the JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise InvalidEvent("the JSON is not valid UTF-8") from error
    except msgspec.DecodeError as error:
        raise InvalidEvent(_explain(str(error), at=at)) from error


def event_type(table: str) -> type[msgspec.Struct]:
    """The JSON type of one event of a table."""
    return _decoder(table).type


@cache
def _decoder(table: str) -> msgspec.json.Decoder[Any]:
    fields: list[Any] = []
    for name, column in EVENT_TABLES[table].columns.items():
        if name in _MADE_HERE:
            continue
        default = _DEFAULTS[table].get(name)
        if default is not None:
            fields.append((name, _type(name, column), default))
        elif column.is_nullable or name in _OPTIONAL:
            fields.append((name, _type(name, column) | None, None))
        else:
            fields.append((name, _type(name, column)))
    event = msgspec.defstruct(f"{table.title()}Event", fields, forbid_unknown_fields=True, kw_only=True)
    return msgspec.json.Decoder(event)


def _type(name: str, column: Column) -> Any:
    if column.values:
        return Literal[column.values]
    limits: dict[str, Any] = {"ge": column.minimum, "le": column.maximum}
    if column.type == "BIGINT":
        limits["le"] = 2**62
    if column.type == "VARCHAR":
        # `$` would let a trailing newline pass
        limits = {"pattern": column.pattern and re.sub(r"\$$", r"\\Z", column.pattern), "max_length": _max_length(name)}
    return Annotated[_TYPES[column.type], msgspec.Meta(**{k: v for k, v in limits.items() if v is not None})]


def _max_length(name: str) -> int:
    return MAX_TEXT if name == "text" else 256


def _complete(event: dict[str, Any], now_us: int) -> dict[str, Any]:
    event["event_id"] = event["event_id"] or fresh_id()
    event["event_us"] = now_us if event["event_us"] is None else min(event["event_us"], now_us)
    event["arrived_us"] = now_us
    if event.get("num_tokens", 0) is None:
        event["num_tokens"] = len(event["text"].split())
    return event


_PATH = r"(?= - at `\$[^`]*`\Z|\Z)"
_ECHOES = [
    (re.compile(r"Invalid enum value .*?" + _PATH, re.DOTALL), "Not one of the values that this field may have"),
    # the type of a part of an input, which nothing else names by a tag
    (re.compile(r"Invalid value .*?" + _PATH, re.DOTALL), "Only parts of type `text` are moderated; images are not"),
    (re.compile(r"Object contains unknown field .*?" + _PATH, re.DOTALL), "Object contains an unknown field"),
]


def _explain(message: str, *, at: str) -> str:
    for pattern, replacement in _ECHOES:
        message = pattern.sub(replacement, message)
    what, _, path = message.partition(" - at `$")
    field = ".".join(part for part in (at, path.strip("`").lstrip(".")) if part)
    return f"`{field}`: {what}" if field else what
