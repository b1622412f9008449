"""Techniques from a file of prompts, in the forms of PyRIT (YAML) and of garak (text or JSON): jailbreaks of others.

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
_LISTS = ("seeds", "prompts")  # where PyRIT keeps several


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
    prompts = list(_prompts(path))
    if not prompts:
        raise ValueError(f"gate.attack_files: {name!r} holds no prompt; it may be .yaml, .json or lines of text")
    return technique(name, prompts=prompts)


def _prompts(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        yield from _values(yaml.safe_load(text))
    elif path.suffix == ".json":
        yield from _values(json.loads(text))
    else:
        yield from (line for line in text.splitlines() if line.strip())


def _values(stored: Any) -> Iterator[str]:
    """Every prompt of a file, however its tool nests them."""
    if isinstance(stored, str):
        yield stored
    elif isinstance(stored, list):
        for one in stored:
            yield from _values(one)
    elif isinstance(stored, dict):
        yield from _values(stored.get("value"))
        for name in _LISTS:
            yield from _values(stored.get(name))
