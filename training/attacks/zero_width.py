"""Characters that no reader sees, inside words (Boucher et al., "Bad Characters", arXiv 2106.09898)."""

from random import Random

from training.attacks.technique import Technique, some_letters

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_LETTERS = {letter: [letter + hidden for hidden in _INVISIBLE] for letter in "abcdefghijklmnopqrstuvwxyz"}


def _rewrite(text: str, rng: Random) -> str:
    return some_letters(text, rng, share=0.5, table=_LETTERS)


TECHNIQUE = Technique("zero_width", _rewrite, is_seen=True)
