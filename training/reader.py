"""Reads texts as bags of ids, one per passage: hashed n-grams and word pieces. Numpy, and `tokenizers` if asked for."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from training.ngrams import hash_ngrams
from training.passages import Said, passages

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WINDOW = 256  # pieces that an encoder reads at a time: what MiniLM was trained on
CHUNK = 64  # passages hashed at a time: their n-grams fit the cache, and on AMD Zen 4 numpy sorts many 5 times slower

NGRAMS, PIECES = "ngrams", "pieces"  # the two ways to read, and the names of their bags


@dataclass(frozen=True)
class Bags:
    """N runs of ids, parted by N + 1 `bounds`."""

    ids: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ids: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> Self:
        """Runs of the given sizes."""
        return cls(ids.astype(np.int32, copy=False), bounds_of(sizes))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def take(self, rows: npt.NDArray[np.int64]) -> "Bags":
        """The given runs, in the given order."""
        return Bags.of(self.ids[positions(self.bounds, rows)], self.bounds[rows + 1] - self.bounds[rows])

    def slice(self, first: int, last: int) -> "Bags":
        """Some neighbouring runs, without copying."""
        bounds = self.bounds[first : last + 1]
        return Bags(self.ids[bounds[0] : bounds[-1]], bounds - bounds[0])


def bounds_of(sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Where N neighbouring runs of the given sizes begin and end [N + 1]."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def positions(bounds: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the members of the given runs lie."""
    sizes = bounds[rows + 1] - bounds[rows]
    starts = bounds_of(sizes)
    return np.arange(starts[-1]) + np.repeat(bounds[rows] - starts[:-1], sizes)


@dataclass(frozen=True)
class Reader:
    """How the text column is read: as n-grams in `num_buckets`, as pieces of a `tokenizer` (its JSON), or both."""

    column: str
    num_buckets: int | None
    tokenizer: str | None

    def read(self, said: Sequence[Said]) -> tuple[npt.NDArray[np.int64], dict[str, Bags]]:
        """The bounds of each record's passages, and the bags of all passages for each way of reading."""
        parts = [passages(one) for one in said]
        texts = list(itertools.chain.from_iterable(parts))
        bags = {}
        if self.num_buckets is not None:
            bags[NGRAMS] = _ngrams(texts, self.num_buckets)
        if self.tokenizer is not None:
            pieces = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
            ids = np.fromiter(itertools.chain.from_iterable(pieces), np.int32)
            bags[PIECES] = Bags.of(ids, np.array([len(one) for one in pieces], np.int64))
        return bounds_of([len(part) for part in parts]), bags

    @property
    def num_pieces(self) -> int:
        """Size of the tokenizer's vocabulary."""
        return self._tokenizer.get_vocab_size()

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        assert self.tokenizer is not None
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_padding()
        tokenizer.no_truncation()  # an encoder reads long passages in windows
        return tokenizer


def windows(pieces: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
    """Windows of a passage, each between the two marks that the passage's own pieces begin and end with."""
    first, body, last = pieces[:1], pieces[1:-1], pieces[-1:]
    starts = range(0, max(1, len(body)), WINDOW - 2)
    return [np.r_[first, body[at : at + WINDOW - 2], last].astype(np.int64) for at in starts]


def _ngrams(texts: list[str], num_buckets: int) -> Bags:
    chunks = [texts[first : first + CHUNK] for first in range(0, len(texts), CHUNK)] or [[]]
    hashed = [hash_ngrams(chunk, num_buckets=num_buckets) for chunk in chunks]
    return Bags.of(*map(np.concatenate, zip(*hashed, strict=True)))
