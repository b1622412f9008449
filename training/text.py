"""Undoes cheap disguises of a text before it is read: one function, used by training and by serving.

It reads the standard library alone, so that it runs where nothing else is installed. The table of look-alikes is that
of Unicode TR39 as packaged by `confusable-homoglyphs`; a test holds `confusables.txt` equal to the library.
"""

import base64
import binascii
import re
import unicodedata
from pathlib import Path

MIN_ENCODED = 24  # characters; shorter runs of letters are words more often than they are base64

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]|[\U000e0000-\U000e01ef]"
)
_ACCENTS = re.compile("[\u0300-\u036f\u20d0-\u20ff]")
_ENCODED = re.compile(rf"(?<![\w+/=-])(?=\S*[A-Z0-9+/_-])[A-Za-z0-9+/_-]{{{MIN_ENCODED},}}={{0,2}}(?![\w+/=-])")
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:([ ._*|-])[^\W_])(?:\1[^\W_]){2,}(?![^\W_])")
_LEET_WORD = re.compile(r"[a-z0134578@$]*[a-z][a-z0134578@$]*")
_LEET = str.maketrans("0134578@$", "oieastbas")


def normalise(text: str) -> str:
    """Return the text in lower case, without what hides words from a reader of n-grams."""
    plain = _decode(_letters(text))
    plain = _SPACED.sub(lambda run: run[0].replace(run[1], ""), plain.lower())
    return _LEET_WORD.sub(lambda word: word[0].translate(_LEET), plain)


def _letters(text: str) -> str:
    """Compatibility forms, invisible characters, look-alikes and stacked accents become plain letters."""
    if text.isascii():
        return text
    composed = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_LOOK_ALIKES)
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", composed)))


def _decode(text: str) -> str:
    """Replace each long run of base64 that holds readable UTF-8 by what it holds."""
    return _ENCODED.sub(lambda run: _readable(run[0]) or run[0], text)


def _readable(encoded: str) -> str | None:
    body = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(body + "=" * (-len(body) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return _letters(decoded) if all(c.isprintable() or c.isspace() for c in decoded) else None


def _read_look_alikes(path: Path) -> dict[int, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {ord(source): line[0] for line in lines for source in line[2:]}


_LOOK_ALIKES = _read_look_alikes(Path(__file__).with_name("confusables.txt"))
