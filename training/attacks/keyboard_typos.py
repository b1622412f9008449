"""A letter replaced by its neighbour on the keyboard (Pruthi et al., "Combating Misspellings", arXiv 1905.11268)."""

from random import Random

from training.attacks.technique import Technique, some_words

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEAR = {row[at]: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in _ROWS for at in range(len(row))}


def _rewrite(text: str, rng: Random) -> str:
    def mistype(word: str) -> str:
        at = rng.randrange(1, len(word))
        return word[:at] + rng.choice(_NEAR.get(word[at].lower(), word[at])) + word[at + 1 :]

    return some_words(text, rng, share=1 / 3, change=mistype, shortest=4)


TECHNIQUE = Technique("keyboard_typos", _rewrite, is_seen=False)
