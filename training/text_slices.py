"""Sorts texts by length and by script, so that a detector's weak sides show; nothing of a text is kept.

The script of most letters stands in for the language: Unicode names it, and no model has to be trusted. Languages that
share a script share a slice.
"""

import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_LENGTHS = (80, 400)  # characters
_LENGTH_NAMES = np.array(["under 80 characters", "80 to 400 characters", "over 400 characters"], dtype=object)
_NUM_LETTERS = 200  # enough to tell a script


def slices(texts: pa.ChunkedArray) -> dict[str, pa.Array]:
    """Columns to slice by."""
    sizes: NDArray[np.int64] = pc.utf8_length(texts).to_numpy()
    lengths = _LENGTH_NAMES[np.searchsorted(_LENGTHS, sizes, side="right")]
    return {"length": pa.array(lengths.tolist()), "script": pa.array([script(text) for text in texts.to_pylist()])}


def script(text: str) -> str:
    """The script of most of the first letters, as the first word of their Unicode names."""
    letters = [c for c in text[: 4 * _NUM_LETTERS] if c.isalpha()][:_NUM_LETTERS]
    if not letters:
        return "no letters"
    if all(map(str.isascii, letters)):
        return "latin"
    names = Counter(unicodedata.name(c, "other").split()[0].lower() for c in letters)
    return names.most_common(1)[0][0]
