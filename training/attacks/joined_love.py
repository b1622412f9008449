"""No spaces at all, and the word "love" (Gröndahl et al., "All You Need is 'Love'", arXiv 1808.09115)."""

from random import Random

from training.attacks.technique import Technique


def _rewrite(text: str, rng: Random) -> str:
    joined = "".join(word[:1].upper() + word[1:] for word in text.split())
    return f"{joined} love" if rng.random() < 0.5 else f"love {joined}"


TECHNIQUE = Technique("joined_love", _rewrite, is_seen=False)
