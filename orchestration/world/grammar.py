"""Writes the world's texts from templates and word lists, thousands at a time."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

VIOLATIONS = (
    "hate", "harassment", "self_harm", "sexual", "violence",
    "jailbreak_injection", "fraud_spam", "malware_cyber", "illicit_other",
)  # fmt: skip
LABELS = (*VIOLATIONS, "toxic", "any_violation")  # toxic is a tone, and no violation
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Register:
    """A way of writing; its labels are true of a text with probability `holds`."""

    name: str
    templates: tuple[tuple[str, ...], ...]  # literal, slot, literal, slot, ..., literal
    labels: tuple[str, ...] = ()
    holds: float = 1.0
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grammar:
    """Registers and the words that fill their slots."""

    registers: tuple[Register, ...]
    words: dict[str, pa.Array]
    openers: pa.Array
    closers: pa.Array

    def code(self, name: str) -> int:
        """The position of a register, which stands for it in arrays."""
        return next(i for i, register in enumerate(self.registers) if register.name == name)

    def write(self, registers: np.ndarray, rng: np.random.Generator) -> pa.Array:
        """One text per register code, in order."""
        num_templates = np.array([len(r.templates) for r in self.registers])
        templates = (rng.random(len(registers)) * num_templates[registers]).astype(np.int64)
        keys = registers * 1000 + templates
        order = np.argsort(keys, kind="stable")
        groups, counts = np.unique(keys, return_counts=True)
        chunks = [self._fill(*divmod(int(g), 1000), count=int(n), rng=rng) for g, n in zip(groups, counts, strict=True)]
        texts = pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())
        return self._frame(texts.take(pa.array(np.argsort(order))), rng)

    def _fill(self, register: int, template: int, *, count: int, rng: np.random.Generator) -> pa.Array:
        pieces = self.registers[register].templates[template]
        filled = [_draw(self.words[p], count, rng) if i % 2 else pa.scalar(p) for i, p in enumerate(pieces)]
        return pc.binary_join_element_wise(pa.repeat("", count), *filled, "")

    def _frame(self, texts: pa.Array, rng: np.random.Generator) -> pa.Array:
        """Put an opener and a closer around a quarter of the texts each, and write some in lower case."""
        opener = pc.if_else(rng.random(len(texts)) < 0.25, _draw(self.openers, len(texts), rng), "")
        closer = pc.if_else(rng.random(len(texts)) < 0.25, _draw(self.closers, len(texts), rng), "")
        framed = pc.binary_join_element_wise(opener, texts, closer, "")
        return pc.if_else(rng.random(len(texts)) < 0.2, pc.utf8_lower(framed), framed)

    def truth(self, registers: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Which labels are true of each text (int8): those of its register, where they hold."""
        holds = rng.random(len(registers)) < np.array([r.holds for r in self.registers])[registers]
        has = {label: np.array([label in r.labels for r in self.registers]) for label in LABELS[:-1]}
        has["any_violation"] = np.array([any(label in VIOLATIONS for label in r.labels) for r in self.registers])
        return {label: (has[label][registers] & holds).astype(np.int8) for label in LABELS}


def obfuscate(texts: pa.Array, style: np.ndarray) -> pa.Array:
    """Disguise texts: style 0 leaves a text alone, 1..4 choose one of the disguises."""
    for code, disguise in enumerate((_leet, _spaced, _homoglyphs, _zero_width), start=1):
        texts = pc.if_else(pa.array(style == code), disguise(texts), texts)
    return texts


def _leet(texts: pa.Array) -> pa.Array:
    return _replace(texts, {"a": "4", "e": "3", "i": "1", "o": "0"})


def _homoglyphs(texts: pa.Array) -> pa.Array:
    return _replace(texts, {"a": "а", "e": "е", "o": "о", "c": "с"})  # Latin letters to their Cyrillic likenesses


def _spaced(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=r"([a-z])([a-z])", replacement=r"\1 \2")


def _zero_width(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=r"([aeiou])", replacement="\\1\u200b")


def _replace(texts: pa.Array, characters: dict[str, str]) -> pa.Array:
    for old, new in characters.items():
        texts = pc.replace_substring(texts, pattern=old, replacement=new)
    return texts


def _draw(words: pa.Array, count: int, rng: np.random.Generator) -> pa.Array:
    return words.take(pa.array(rng.integers(0, len(words), count)))


@cache
def load_grammar() -> Grammar:
    """The grammar that ships with the world."""
    raw = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    registers = tuple(
        Register(
            name=name,
            templates=tuple(tuple(SLOT.split(template)) for template in entry["templates"]),
            labels=tuple(entry.get("labels", ())),
            holds=entry.get("holds", 1.0),
            answers=tuple(entry.get("answers", ())),
        )
        for name, entry in raw["registers"].items()
    )
    words = {slot: pa.array(values, pa.string()) for slot, values in raw["words"].items()}
    return Grammar(registers, words, pa.array(raw["openers"]), pa.array(raw["closers"]))
