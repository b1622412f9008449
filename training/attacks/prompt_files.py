"""Techniques from a file of prompts, in the forms of PyRIT (YAML) and of garak (text, JSON): jailbreaks of others.

A prompt that holds `{{ prompt }}` takes the text there; any other stands before it. What such files hold is data of
whoever names them, so it is read from the data directory and never stored.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from training.attacks.technique import Technique

PREFIX = "file:"  # of a technique's name
_SLOT = re.compile(r"\{\{\s*prompt\s*\}\}")
_KEYS = ("value", "prompt", "seeds", "prompts")  # of one prompt, and of several
_YAML, _JSON, _LINES = (".yaml", ".yml", ".prompt"), (".json", ".jsonl"), (".txt",)


def technique(name: str, *, prompts: list[str] | None = None) -> Technique:
    """A held-out technique of a file; without its prompts it says what measuring needs and rewrites nothing."""

    def rewrite(text: str, rng: Random) -> str:
        prompt = rng.choice(prompts or ["{{ prompt }}"])
        return _SLOT.sub(lambda _: text, prompt) if _SLOT.search(prompt) else f"{prompt}\n\n{text}"

    return Technique(
        PREFIX + name, rewrite, is_seen=False, violates=frozenset({"jailbreak_injection", "any_violation"})
    )


def read(name: str, data: Path | None) -> Technique:
    """The technique of a file below the data directory; raises ValueError that names the file and what is wrong."""
    path = data / name if data else None
    if path is None or not path.is_file():
        where = "no data directory is set (MEWS_DATA)" if data is None else "the data directory lacks it"
        raise ValueError(f"gate.attack_files names {name!r}, and {where}")
    try:
        prompts = list(_prompts(path))
    except (yaml.YAMLError, ValueError) as error:  # of JSON and of UTF-8, too
        raise ValueError(f"gate.attack_files: {name!r} cannot be read: {error}") from error
    if not prompts:
        raise ValueError(f"gate.attack_files: {name!r} holds no prompt: no text below {', '.join(_KEYS)}, and no line")
    return technique(name, prompts=prompts)


def _prompts(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix in _YAML:
        yield from _values(list(yaml.safe_load_all(text)))
    elif path.suffix == ".json":
        yield from _values(json.loads(text))
    elif path.suffix == ".jsonl":
        yield from _values([json.loads(line) for line in text.split("\n") if line.strip()])
    elif path.suffix in _LINES:
        yield from (line for line in text.splitlines() if line.strip())
    else:
        raise ValueError(f"its suffix is {path.suffix!r}, none of {', '.join((*_YAML, *_JSON, *_LINES))}")


def _values(stored: Any) -> Iterator[str]:
    """Every prompt of a file, however its tool nests them."""
    if isinstance(stored, str):
        yield stored
    elif isinstance(stored, list):
        for one in stored:
            yield from _values(one)
    elif isinstance(stored, dict):
        for key in _KEYS:
            yield from _values(stored.get(key))
