"""The techniques of the gym. To add one: a file here, a line below.

The held-out ones are those of the literature: written last, after the normaliser, and never shown in training.
"""

from training.attacks import (
    base64_text,
    char_swap,
    diacritics,
    emoji,
    encodings,
    flipped_words,
    homoglyphs,
    inner_shuffle,
    jailbreak,
    joined_love,
    keyboard_typos,
    leet,
    many_shot,
    mixing,
    nested_scene,
    padding,
    payload_splitting,
    refusal_suppression,
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
    emoji,
    encodings,
    flipped_words,
    homoglyphs,
    inner_shuffle,
    jailbreak,
    joined_love,
    keyboard_typos,
    leet,
    many_shot,
    mixing,
    nested_scene,
    padding,
    payload_splitting,
    refusal_suppression,
    spacing,
    styled_letters,
    turns,
    wrapping,
    zero_width,
)
TECHNIQUES: dict[str, Technique] = {module.TECHNIQUE.name: module.TECHNIQUE for module in _MODULES}
