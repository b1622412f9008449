"""Harmless sentences before and after the text (Lowd and Meek, "Good Word Attacks", CEAS 2005)."""

from random import Random

from training.attacks.technique import Technique

_SUBJECTS = (
    "My sister",
    "The gardener",
    "Our neighbour",
    "A friend of mine",
    "The teacher",
    "Grandfather",
    "The baker",
)
_VERBS = ("likes to talk about", "wrote a short note on", "is learning about", "showed me", "asked me about", "painted")
_THINGS = (
    *("the roses behind the house", "a new recipe for soup", "the train to the coast", "old maps", "the town library"),
    *("a football match", "the weather in spring", "a song from the radio", "the stars", "her favourite museum"),
)
_ENDS = ("last week.", "in the afternoon.", "every Sunday.", "with great patience.", "and it made us smile.")


def _rewrite(text: str, rng: Random) -> str:
    before, after = (" ".join(_sentence(rng) for _ in range(rng.randint(1, 3))) for _ in range(2))
    return f"{before} {text} {after}"


def _sentence(rng: Random) -> str:
    return " ".join(map(rng.choice, (_SUBJECTS, _VERBS, _THINGS, _ENDS)))


TECHNIQUE = Technique("padding", _rewrite, is_seen=True)
