"""Undoes cheap disguises of a text before it is read: one function, used by training and by serving.

It reads the standard library alone, so that it runs where nothing else is installed. The table of look-alikes is that
of Unicode TR39 as packaged by `confusable-homoglyphs`; a test holds `confusables.txt` equal to the library. Letters
that it lacks (small capitals, letters in black squares) say in their Unicode name which letter they show.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

MIN_ENCODED = 24  # characters; shorter runs of letters are words more often than they are base64

READABLE = 0.9  # of what a code holds is to be printable for it to be a text; the rest is dropped
PART = 256
_PART = re.compile(
    rf".{{1,{PART}}}(?=[\x00-\x7f]|\Z)|.{{1,{PART}}}", re.DOTALL
)  # no sign composes with an ASCII after it

_TAG = re.compile("[\U000e0020-\U000e007e]")  # invisible twins of ASCII
_TAGS = {0xE0000 + code: code for code in range(0x20, 0x7F)}
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]|[\U000e0000-\U000e01ef]"
)
_ACCENTS = re.compile("[\u0300-\u036f\u20d0-\u20ff]")
_NAMED_LETTER = re.compile(
    r"(?:LATIN|REGIONAL INDICATOR|NEGATIVE \w+ LATIN)(?: \w+)* LETTER (?:SMALL CAPITAL )?([A-Z])(?: WITH .+)?"
)
_BASE64 = re.compile(rf"(?<![\w+/=-])[A-Za-z0-9+/_-]{{{MIN_ENCODED},}}={{0,2}}(?![\w+/=-])")
_HEX = re.compile(rf"(?<!\w)(?:[0-9A-Fa-f]{{2}}){{{MIN_ENCODED // 2},}}(?!\w)")
_BITS = re.compile(r"(?<!\w)(?:[01]{8} ?){3,}(?!\w)")
_ESCAPED = re.compile(r"(?:\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2})+")
_ROT13_WORDS = frozenset(
    codecs.encode("the and you how to of for with that this are what my your make have it is", "rot13").split()
)
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:([ ._*|-])[^\W_])(?:\1[^\W_])+(?![^\W_])")
_SPACED_END = re.compile(r"([ ._*|-])[^\W_]\1[^\W_](?![^\W_])")  # as every match of _SPACED ends; found faster
_LEET_SIGNS = "0134578@$"
_LEET_WORD = re.compile(r"(?<![a-z0134578@$])[a-z]*+[0134578@$][a-z0134578@$]*+")
_LEET = str.maketrans(_LEET_SIGNS, "oieastbas")


def normalise(text: str) -> str:
    """Return the text in lower case, without what hides words from a reader of n-grams."""
    plain = _decode(_letters(text)).lower()
    if len(_ROT13_WORDS.intersection(plain.split())) > 1:
        plain = codecs.encode(plain, "rot13")
    if _SPACED_END.search(plain):
        plain = _SPACED.sub(lambda run: run[0].replace(run[1], ""), plain)
    plain = _LEET_WORD.sub(_without_leet, plain)
    return " ".join(plain.split())


def _letters(text: str) -> str:
    """Compatibility forms, invisible characters, look-alikes and stacked accents become plain letters."""
    if text.isascii():
        return text
    if _TAG.search(text):
        text = text.translate(_TAGS)
    return _plain_letters(text) if len(text) <= PART else "".join(map(_plain_letters, _PART.findall(text)))


def _plain_letters(text: str) -> str:
    """Of a part at a time, as Unicode's forms take the square of the length of a run of accents."""
    composed = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_LOOK_ALIKES)
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", composed)))


def _decode(text: str) -> str:
    """Replace what is written in a transport code by what it holds, where that is readable."""
    if "%" in text:
        text = unquote(text, errors="ignore") if text.count("%") > 2 else text
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _ESCAPED.sub(lambda run: _readable(run[0], _escape_sequences), text)
    if "01" in text:
        text = _BITS.sub(lambda run: _readable(run[0], _binary_digits), text)
    if len(max(text.split(), key=len, default="")) < MIN_ENCODED:
        return text
    text = _HEX.sub(lambda run: _readable(run[0], bytes.fromhex), text)
    return _BASE64.sub(lambda run: _readable(run[0], _base64), text)


def _without_leet(word: re.Match[str]) -> str:
    """A number stays what it is."""
    return word[0].translate(_LEET) if word[0].strip(_LEET_SIGNS) else word[0]


def _readable(run: str, read: Callable[[str], bytes]) -> str:
    """What a run of code holds; the run itself where that is no text."""
    try:
        decoded = _letters(read(run).decode())
    except (binascii.Error, ValueError):
        return run
    kept = "".join(c for c in decoded if c.isprintable() or c.isspace())
    is_text = len(kept) >= READABLE * len(decoded)
    return kept + " " * run.endswith(" ") if is_text else run


def _base64(run: str) -> bytes:
    if run.isalpha() and run.islower():
        raise ValueError("a word")
    body = run.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(body + "=" * (-len(body) % 4))


def _binary_digits(run: str) -> bytes:
    digits = run.replace(" ", "")
    return bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8))


def _escape_sequences(run: str) -> bytes:
    joined = codecs.decode(run, "unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return joined.encode()


class _LookAlikes(dict[int, int | str]):
    """What a character looks like; one that the table lacks is read from its name, once."""

    def __missing__(self, code: int) -> int | str:
        named = _NAMED_LETTER.fullmatch(unicodedata.name(chr(code), ""))
        self[code] = named[1].lower() if named else code
        return self[code]


def _read_look_alikes(path: Path) -> _LookAlikes:
    lines = path.read_text(encoding="utf-8").splitlines()
    return _LookAlikes({ord(source): line[0] for line in lines for source in line[2:]})


_LOOK_ALIKES = _read_look_alikes(Path(__file__).with_name("confusables.txt"))
