"""Marks stacked on and struck through letters, "Zalgo" (Eger et al., "Text Processing Like Humans Do", 1903.11508)."""

from random import Random

from training.attacks.technique import Technique, some_letters

_MARKS = [chr(code) for code in range(0x300, 0x36F)]
_LETTERS = {letter: [letter + mark for mark in _MARKS] for letter in "abcdefghijklmnopqrstuvwxyz"}


def _rewrite(text: str, rng: Random) -> str:
    return some_letters(text, rng, share=0.6, table=_LETTERS)


TECHNIQUE = Technique("diacritics", _rewrite, is_seen=True)
