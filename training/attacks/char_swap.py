"""Two neighbouring letters exchanged, in a third of the longer words (Gao et al., "DeepWordBug", arXiv 1801.04354)."""

from random import Random

from training.attacks.technique import Technique, some_words


def _rewrite(text: str, rng: Random) -> str:
    def swap(word: str) -> str:
        at = rng.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return some_words(text, rng, share=1 / 3, change=swap, shortest=4)


TECHNIQUE = Technique("char_swap", _rewrite, is_seen=True)
