"""What a technique of attack is: a way to rewrite a text so that a detector misses what a reader still finds.

Standard library alone, because training applies techniques where little else is installed.
"""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Technique:
    """A pure function from a text and a seed to a text, applied to harmful texts and to their benign twins alike.

    `is_seen`: training may show it to a detector, and the normaliser may be designed for it; else it is held out.
    `violates`: labels that the rewriting itself makes true, such as a jailbreak around a harmless question. They say
    nothing about the twin, so they are left out where it is measured; training shows such a technique with them.
    """

    name: str
    rewrite: Callable[[str, Random], str]
    is_seen: bool
    violates: frozenset[str] = frozenset()

    def apply(self, text: str, *, seed: int = 0) -> str:
        """The disguised text; the same for the same text and seed, on any machine and in any order of texts."""
        key = f"{seed} {self.name} {text}".encode(errors="surrogatepass")
        return self.rewrite(text, Random(zlib.crc32(key)))


def some_words(text: str, rng: Random, *, share: float, change: Callable[[str], str], shortest: int = 1) -> str:
    """Change a share of the words that have at least `shortest` letters."""

    def maybe(word: re.Match[str]) -> str:
        return change(word[0]) if len(word[0]) >= shortest and rng.random() < share else word[0]

    return WORD.sub(maybe, text)


def some_letters(text: str, rng: Random, *, share: float, table: Mapping[str, Sequence[str]]) -> str:
    """Replace a share of the characters that a table knows by one of what it offers."""
    return "".join(rng.choice(table[c]) if c in table and rng.random() < share else c for c in text)
