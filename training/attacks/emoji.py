"""Emoji between the letters of words (Wei et al., "Emoji Attack", arXiv 2411.01077)."""

from random import Random

from training.attacks.technique import Technique, some_words

_EMOJI = "😀😊🙃🌸🌈🐸🍀⭐🎈🍋🚲🎵"


def _rewrite(text: str, rng: Random) -> str:
    def split(word: str) -> str:
        at = rng.randrange(1, len(word))
        return word[:at] + rng.choice(_EMOJI) + word[at:]

    return some_words(text, rng, share=1 / 3, change=split, shortest=3)


TECHNIQUE = Technique("emoji", _rewrite, is_seen=False)
