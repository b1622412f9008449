"""The text in pieces over several turns of a conversation, with harmless answers between them."""

from random import Random

from training.attacks.technique import Technique

_ANSWERS = (
    "Got it, go on.",
    "Thanks, I will wait for the rest.",
    "Understood so far.",
    "Sure, what comes next?",
    "Okay, I noted the first part.",
)


def _rewrite(text: str, rng: Random) -> str:
    words = text.split(" ")
    count = min(rng.randint(2, 4), max(1, len(words)))
    cuts = sorted(rng.sample(range(1, len(words)), count - 1)) if count > 1 else []
    parts = [" ".join(words[a:b]) for a, b in zip([0, *cuts], [*cuts, len(words)], strict=True)]
    return "\n".join(f"User: {part}\nAssistant: {rng.choice(_ANSWERS)}" for part in parts)


TECHNIQUE = Technique("turns", _rewrite, is_seen=True)
