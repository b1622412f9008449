"""Words pulled apart, letter by letter; words stay apart by a wider gap."""

from random import Random

from training.attacks.technique import Technique, some_words


def _rewrite(text: str, rng: Random) -> str:
    between = rng.choice(" .-_*")
    apart = text.replace(" ", "  ") if between == " " else text
    return some_words(apart, rng, share=0.8, change=between.join)


TECHNIQUE = Technique("spacing", _rewrite, is_seen=True)
