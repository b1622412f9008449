"""The inner letters of words in any order (Belinkov and Bisk, "Noise Breaks Machine Translation", arXiv 1711.02173)."""

from random import Random

from training.attacks.technique import Technique, some_words


def _rewrite(text: str, rng: Random) -> str:
    def shuffle(word: str) -> str:
        return word[0] + "".join(rng.sample(word[1:-1], len(word) - 2)) + word[-1]

    return some_words(text, rng, share=0.5, change=shuffle, shortest=4)


TECHNIQUE = Technique("inner_shuffle", _rewrite, is_seen=False)
