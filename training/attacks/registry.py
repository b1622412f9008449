"""The techniques of the gym. To add one: a file here, a line below. The held-out ones are those of the literature that
nobody looked at while the normaliser was written and that training never shows."""

from training.attacks import (
    base64_text,
    char_swap,
    diacritics,
    encodings,
    homoglyphs,
    jailbreak,
    leet,
    mixing,
    padding,
    spacing,
    styled_letters,
    turns,
    wrapping,
    zero_width,
)
from training.attacks.technique import Technique

_MODULES = (
    base64_text,
    char_swap,
    diacritics,
    encodings,
    homoglyphs,
    jailbreak,
    leet,
    mixing,
    padding,
    spacing,
    styled_letters,
    turns,
    wrapping,
    zero_width,
)
TECHNIQUES: dict[str, Technique] = {module.TECHNIQUE.name: module.TECHNIQUE for module in _MODULES}
