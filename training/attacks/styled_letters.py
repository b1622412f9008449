"""One of Unicode's styled alphabets: mathematical, full-width, circled, squared, small capitals."""

from random import Random

from training.attacks.technique import Technique

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_FIRST = (0x1D41A, 0x1D4EA, 0x1D552, 0x1D5BA, 0x1D68A, 0xFF41, 0x24D0)  # where an alphabet's "a" stands
_ALPHABETS = [
    *({ord(c): first + i for i, c in enumerate(_LOWER)} for first in _FIRST),
    {ord(c): 0x1F170 + i for i, c in enumerate(_LOWER)},
    str.maketrans(_LOWER, "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘqʀꜱᴛᴜᴠᴡxʏᴢ"),
]


def _rewrite(text: str, rng: Random) -> str:
    return text.lower().translate(rng.choice(_ALPHABETS))


TECHNIQUE = Technique("styled_letters", _rewrite, is_seen=True)
