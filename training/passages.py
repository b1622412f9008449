"""Cuts what a record says into passages, which are scored one by one; a record scores as its worst passage.

So a violation counts the same on the first page and on the fiftieth. Within a passage an encoder whose limit is shorter
reads windows and takes their mean: on 18,584 validation rows the mean of windows had a macro average precision of .81,
the worst window .77, for a long benign document then has many chances to look bad.

What is said is a text or a conversation: a list of turns such as {"role": "user", "content": "..."}. All turns of one
role are read as one text, in their order: what is spread over turns is read together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from training.text import normalise

MAX_CHARACTERS = 4000  # 99.7 % of the training rows of content_mix are one passage

Said = str | Sequence[Mapping[str, Any]]


def passages(said: Said) -> list[str]:
    """The normalised passages of what a record says, at least one; raises ValueError naming what is not a turn."""
    texts = [said] if isinstance(said, str) else _texts_of_roles(said)
    return [passage for text in texts for passage in cut(normalise(text))]


def cut(text: str) -> list[str]:
    """Neighbouring pieces of at most MAX_CHARACTERS, parted at a space where the second half of a piece has one."""
    pieces = []
    while len(text) > MAX_CHARACTERS:
        space = text.rfind(" ", MAX_CHARACTERS // 2, MAX_CHARACTERS)
        end = space if space > 0 else MAX_CHARACTERS
        pieces.append(text[:end])
        text = text[end:]
    return [*pieces, text]


def _texts_of_roles(turns: Sequence[Mapping[str, Any]]) -> list[str]:
    spoken: dict[str, list[str]] = {}
    for at, turn in enumerate(turns):
        if not (isinstance(turn, Mapping) and isinstance(turn.get("content"), str)):
            raise ValueError(f"turn {at} is a {type(turn).__name__}; it must hold a role and a content, both text")
        spoken.setdefault(str(turn.get("role")), []).append(turn["content"])
    return ["\n".join(contents) for contents in spoken.values()] or [""]
