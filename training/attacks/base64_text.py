"""The whole text in base64, which language models read (Wei et al., "Jailbroken", arXiv 2307.02483)."""

import base64
from random import Random

from training.attacks.technique import Technique


def _rewrite(text: str, rng: Random) -> str:
    encode = rng.choice([base64.b64encode, base64.urlsafe_b64encode])
    return encode(text.encode(errors="replace")).decode()


TECHNIQUE = Technique("base64", _rewrite, is_seen=True)
