"""The whole text in another code than base64: the encoding probes of garak (https://github.com/NVIDIA/garak)."""

import codecs
from collections.abc import Callable
from random import Random
from urllib.parse import quote

from training.attacks.technique import Technique


def _rewrite(text: str, rng: Random) -> str:
    return rng.choice(_CODES)(text)


def _bits(text: str) -> str:
    return " ".join(f"{byte:08b}" for byte in text.encode(errors="replace"))


_CODES: tuple[Callable[[str], str], ...] = (
    lambda text: text.encode(errors="replace").hex(),
    lambda text: "".join(f"%{byte:02X}" for byte in text.encode(errors="replace")),
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: "".join(f"&#{ord(c)};" for c in text),
    lambda text: "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in text),
    lambda text: codecs.encode(text, "rot13"),
    _bits,
)
TECHNIQUE = Technique("encodings", _rewrite, is_seen=True)
