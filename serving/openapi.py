"""The OpenAPI document: paths by hand, schemas from the very types that decode and answer."""

import re
from functools import cache
from typing import Any

import msgspec

from feature_repo.tables import EVENT_TABLES
from serving.events import MAX_EVENTS, event_type
from serving.openai_shape import ModerationBody
from serving.record import DECISION_ID, Answer, Record

_JSON = "application/json"
_ERRORS = {
    "400": "what was sent breaks the contract; the message names field and limit",
    "401": "missing or unknown API key",
    "403": "the API key lacks the scope",
    "404": "no such thing is served",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "415": "unsupported media type or compression",
    "429": "too much; come back after Retry-After seconds",
    "500": "a fault of the service",
    "503": "nothing can be decided now, for instance because the log's disk is full",
}


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mews", "version": "1", "description": "Decisions about texts, payments and accounts."},
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _paths() -> dict[str, Any]:
    decided = _object({"decisions": {"type": "array", "items": _ref("Answer")}})
    return {
        "/v1/decisions": _post("Decide one event or many of one detector", _ref("DecisionsBody"), answer=decided),
        "/v1/scores": _post("Score events, and decide and keep nothing", _ref("DecisionsBody"), answer=_ref("Scores")),
        "/v1/moderations": _post(
            "Moderate texts; the shape of OpenAI's endpoint", _ref("ModerationBody"), answer=_ref("Moderation")
        ),
        "/v1/bulk": _bulk(),
        "/v1/decisions/{decision_id}": _decision(),
        "/v1/releases": {"get": _operation("What is served, and why something newer is not", _ref("Releases"))},
        "/v1/tables": _table(),
        "/openapi.json": _public("This document", {"type": "object"}),
        "/schema.json": _public("The routes that BentoML's client calls", {"type": "object"}),
        "/metrics": _public("Counters for Prometheus", {"type": "string"}, media="text/plain"),
        "/healthz": _public("Whether the process lives", {"type": "string"}, media="text/plain"),
        "/readyz": _public("Whether something is served", {"type": "string"}, media="text/plain"),
    }


def _public(summary: str, answer: dict[str, Any], *, media: str = _JSON) -> dict[str, Any]:
    operation = _operation(summary, answer, media=media) | {"security": []}
    if media != _JSON:  # the probes are BentoML's, and refuse in plain text
        operation["responses"]["503"] = {"description": _ERRORS["503"], "content": {media: {"schema": answer}}}
    return {"get": operation}


def _operation(summary: str, answer: dict[str, Any], *, media: str = _JSON) -> dict[str, Any]:
    problem = {_JSON: {"schema": _ref("Error")}}
    errors = {status: {"description": text, "content": problem} for status, text in _ERRORS.items()}
    done = {"200": {"description": "done", "content": {media: {"schema": answer}}}}
    return {"summary": summary, "responses": done | errors}


def _post(summary: str, body: dict[str, Any], *, answer: dict[str, Any]) -> dict[str, Any]:
    content = {"required": True, "content": {_JSON: {"schema": body}}}
    return {"post": _operation(summary, answer) | {"requestBody": content}}


def _table() -> dict[str, Any]:
    path = _post("Score a table of events, by BentoML's client", _ref("Table"), answer=_list(_scored()))
    refusals = {status: {"description": text} for status, text in _ERRORS.items()}  # in BentoML's shape
    path["post"]["responses"] |= refusals
    return path


def _bulk() -> dict[str, Any]:
    lines = {
        "type": "string",
        "description": "One event per line; one answer or error per line comes back. Where the answers end too soon, "
        "the last one is an error with `ended_at_line`, the first line that is not answered, in place of `line`.",
    }
    operation = _operation("Decide a stream of events", lines, media="application/jsonl")
    content = {"required": True, "content": {"application/jsonl": {"schema": lines}}}
    return {"post": operation | {"requestBody": content, "parameters": [_parameter("detector", "query")]}}


def _decision() -> dict[str, Any]:
    decision_id = _parameter("decision_id", "path", {"type": "string", "pattern": f"^{DECISION_ID.pattern[:-2]}$"})
    again = {"name": "replay", "in": "query", "schema": {"type": "string", "enum": ["true", "false"]}}
    operation = _operation("What was decided, from what, and why", _ref("Record"))
    return {"get": operation | {"parameters": [decision_id, again]}}


def _parameter(name: str, place: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": place, "required": True, "schema": schema or {"type": "string"}}


def _schemas() -> dict[str, Any]:
    events = [event_type(table) for table in EVENT_TABLES]
    _, schemas = msgspec.json.schema_components(
        [Answer, Record, ModerationBody, *events], ref_template="#/components/schemas/{name}"
    )
    any_event = {"anyOf": [_ref(event.__name__) for event in events]}
    text = {"error": _object({name: {"type": ["string", "null"]} for name in ("message", "type", "request_id")})}
    many = {"type": "array", "items": any_event, "minItems": 1, "maxItems": MAX_EVENTS}
    one_or_many = {"detector": {"type": "string"}, "event": any_event, "events": many}
    body = {"type": "object", "properties": one_or_many, "required": ["detector"], "additionalProperties": False}
    return {**_in_ecma(schemas), "DecisionsBody": body, "Error": _object(text), **_answers()}


def _in_ecma(schema: Any) -> Any:
    """A schema whose patterns end as those of JavaScript do, which knows no `\\Z`."""
    if isinstance(schema, list):
        return [_in_ecma(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: re.sub(r"\\Z\Z", "$", value) if name == "pattern" and isinstance(value, str) else _in_ecma(value)
        for name, value in schema.items()
    }


def _answers() -> dict[str, Any]:
    string, number, flag = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
    flagged = "A label reached its threshold, or the action is harder than `log`, whatever led to it."
    result = {
        "flagged": flag | {"description": flagged},
        "categories": {"type": "object", "additionalProperties": flag},
        "category_scores": {"type": "object", "additionalProperties": number},
        "mews": _ref("Answer"),
    }
    served = {"detector": string, "release": {"type": ["string", "null"]}, "trouble": _list(string)}
    return {
        "Scores": _object({"detector": string, "release": string, "scores": _list(_scored())}),
        "Table": _object({"detector": string, "rows": _list({"type": "object"})}),
        "Moderation": _object({"id": string, "model": string, "results": _list(_object(result))}),
        "Releases": _object(
            {"ready": flag, "detectors": _list(_object(served)), "challengers": _list(_object(served))}
        ),
    }


def _scored() -> dict[str, Any]:
    return {"type": ["object", "null"], "additionalProperties": {"type": "number"}}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
