"""Digits and signs in place of letters, as players and spammers write."""

from random import Random

from training.attacks.technique import Technique, some_letters

_SIGNS = {
    "a": "4@",
    "b": "8",
    "e": "3",
    "i": "1",
    "o": "0",
    "s": "5$",
    "t": "7",
    "A": "4@",
    "E": "3",
    "I": "1",
    "O": "0",
}


def _rewrite(text: str, rng: Random) -> str:
    return some_letters(text, rng, share=0.7, table=_SIGNS)


TECHNIQUE = Technique("leet", _rewrite, is_seen=True)
