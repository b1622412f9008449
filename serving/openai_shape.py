"""The shape of OpenAI's moderation endpoint, so that clients written for it can point at this service.

Such a client acts on `flagged` alone, so it is set also where no label is: what the policy holds because it could not
be scored or because its score is uncertain must not pass.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from serving.events import MAX_TEXT, InvalidEvent, parse
from serving.record import Record, answer
from training.policy import Action

DETECTOR = "content"
MAX_INPUTS = 512
_THEIR_NAMES = {"self_harm": "self-harm", "illicit_other": "illicit", "jailbreak_injection": "jailbreak"}


class TextInput(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """One typed input; images are not moderated here."""

    text: str


class ModerationBody(msgspec.Struct, frozen=True):
    """The body of `POST /v1/moderations`; `model` names a detector of texts; one of OpenAI's means `content`."""

    input: str | list[str | TextInput]
    model: str = DETECTOR


_body = msgspec.json.Decoder(ModerationBody).decode


def parse_moderation(data: bytes) -> tuple[str, list[str]]:
    """The detector that is asked for and the texts."""
    body = parse(_body, data)
    inputs = [body.input] if isinstance(body.input, str) else body.input
    texts = [item if isinstance(item, str) else item.text for item in inputs]
    if not 1 <= len(texts) <= MAX_INPUTS:
        raise InvalidEvent(f"`input` holds {len(texts)} texts; it must hold 1 to {MAX_INPUTS}")
    if too_long := [i for i, text in enumerate(texts) if len(text) > MAX_TEXT]:
        raise InvalidEvent(f"`input[{too_long[0]}]`: Expected `str` of length <= {MAX_TEXT}")
    is_theirs = body.model.startswith(("omni-moderation", "text-moderation"))
    return (DETECTOR if is_theirs else body.model), texts


def moderation(records: Sequence[Record], model: str) -> dict[str, Any]:
    """The answer; each result also carries our own under `mews`."""
    return {"id": f"modr-{records[0].decision_id}", "model": model, "results": [_result(r) for r in records]}


def _result(record: Record) -> dict[str, Any]:
    scores = record.scores or {}
    names = {label: _THEIR_NAMES.get(label, label) for label in scores}
    return {
        "flagged": bool(record.labels) or record.action.severity > Action.LOG.severity,
        "categories": {names[label]: label in record.labels for label in scores},
        "category_scores": {names[label]: score for label, score in scores.items()},
        "category_applied_input_types": {names[label]: ["text"] for label in scores},
        "mews": msgspec.structs.asdict(answer(record)),
    }
