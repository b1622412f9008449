"""Turns records into model input: the one function that training and serving share. Numpy alone.

A text becomes a bag of hashed n-grams; everything else becomes one row of `dense` float32 columns, in this order:
numbers (quantile-normal, 0 where unknown) · is-missing flags of the numbers · category ids (0 = not seen).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from training.detector import DetectorSpec, Ratio
from training.ngrams import hash_ngrams
from training.text import normalise

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]

NUM_QUANTILES = 1000
FARTHEST = 4.0  # standard deviations; an extreme value says no more than this
MIN_CATEGORY_ROWS = 10  # rarer values share the bucket of values not seen, which thereby is trained
CHUNK = 4096  # texts hashed at a time


@dataclass(frozen=True)
class Encoded:
    """Model input of N rows: `dense` [N, D], and bags as `ids` with N + 1 `bounds` (no text: all bags are empty)."""

    dense: Floats
    ids: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.dense)

    def take(self, rows: npt.NDArray[np.int64]) -> "Encoded":
        """The given rows, in the given order."""
        sizes = self.bounds[rows + 1] - self.bounds[rows]
        bounds = np.r_[0, np.cumsum(sizes)]
        at = np.arange(bounds[-1]) + np.repeat(self.bounds[rows] - bounds[:-1], sizes)
        return Encoded(self.dense[rows], self.ids[at], bounds)

    def slice(self, first: int, last: int) -> "Encoded":
        """Some neighbouring rows, without copying."""
        bounds = self.bounds[first : last + 1]
        return Encoded(self.dense[first:last], self.ids[bounds[0] : bounds[-1]], bounds - bounds[0])


@dataclass(frozen=True)
class QuantileNormal:
    """A monotone map of one number to a standard normal, by the quantiles of the training rows."""

    values: list[float]
    scores: list[float]

    @classmethod
    def fit(cls, column: Doubles) -> Self:
        """Learn the quantiles at evenly spaced scores, so that the tails are told apart as finely as the middle.

        Tied quantiles share the middle of their ranks.
        """
        known = column[np.isfinite(column)]
        if not known.size:
            return cls([0.0], [0.0])
        ranks = np.r_[0.0, [NormalDist().cdf(score) for score in np.linspace(-FARTHEST, FARTHEST, NUM_QUANTILES)], 1.0]
        values, first, count = np.unique(np.quantile(known, ranks), return_index=True, return_counts=True)
        middles = (ranks[first] + ranks[first + count - 1]) / 2
        scores = [NormalDist().inv_cdf(m) if 0 < m < 1 else FARTHEST * (2 * m - 1) for m in middles]
        return cls(values.tolist(), np.clip(scores, -FARTHEST, FARTHEST).tolist())

    def apply(self, column: Doubles) -> Doubles:
        """Scores within four standard deviations; not a number stays so."""
        return np.interp(column, self.values, self.scores)


@dataclass(frozen=True)
class Encoder:
    """What was learned from the training rows about how to read a record; JSON is its only stored form."""

    text: str | None
    num_buckets: int
    ratios: list[Ratio]
    numbers: dict[str, QuantileNormal]
    categories: dict[str, dict[str, int]]

    @classmethod
    def fit(cls, rows: "Rows | pa.Table", spec: DetectorSpec) -> Self:
        """Learn quantiles and categories; give it the training split only."""
        names = [*spec.numbers, *(ratio.name for ratio in spec.ratios)]
        return cls(
            text=spec.text,
            num_buckets=spec.fit.num_buckets,
            ratios=spec.ratios,
            numbers={name: QuantileNormal.fit(_number(rows, name, spec.ratios)) for name in names},
            categories={name: _vocabulary(_category(rows, name)) for name in spec.categories},
        )

    @property
    def cardinalities(self) -> list[int]:
        """Per category, how many ids there are, with the id of values not seen."""
        return [len(vocabulary) + 1 for vocabulary in self.categories.values()]

    @property
    def width(self) -> int:
        """Columns of `dense`."""
        return 2 * len(self.numbers) + len(self.categories)

    def encode(self, rows: "Rows | pa.Table") -> Encoded:
        """Encode records; a missing column or a value of the wrong type raises ValueError naming it."""
        raw = [(_number(rows, name, self.ratios), scale) for name, scale in self.numbers.items()]
        columns = [np.nan_to_num(scale.apply(values)) for values, scale in raw]
        columns += [np.isnan(values) for values, _ in raw]
        for name, vocabulary in self.categories.items():
            columns.append(np.array([vocabulary.get(value, 0) for value in _category(rows, name)]))
        dense = np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((len(rows), 0), np.float32)
        return Encoded(dense, *self._bags(rows))

    def _bags(self, rows: "Rows | pa.Table") -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        if self.text is None:
            return np.zeros(0, np.int32), np.zeros(len(rows) + 1, np.int64)
        texts = _text(rows, self.text)
        all_ids, sizes = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for first in range(0, len(texts), CHUNK):
            chunk = [normalise(text) for text in texts[first : first + CHUNK]]
            ids, offsets = hash_ngrams(chunk, num_buckets=self.num_buckets)
            all_ids.append(ids.astype(np.int32))
            sizes.append(np.diff(np.r_[offsets, ids.size]))
        return np.concatenate(all_ids), np.r_[0, np.cumsum(np.concatenate(sizes))]

    def to_json(self) -> str:
        """A form that `from_json` reads back without loss."""
        return json.dumps(
            {
                "text": self.text,
                "num_buckets": self.num_buckets,
                "ratios": [ratio.model_dump() for ratio in self.ratios],
                "numbers": {name: [scale.values, scale.scores] for name, scale in self.numbers.items()},
                "categories": self.categories,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        stored = json.loads(text)
        return cls(
            text=stored["text"],
            num_buckets=stored["num_buckets"],
            ratios=[Ratio(**ratio) for ratio in stored["ratios"]],
            numbers={name: QuantileNormal(*parts) for name, parts in stored["numbers"].items()},
            categories=stored["categories"],
        )


def _vocabulary(values: list[str]) -> dict[str, int]:
    names, counts = np.unique(np.array(values, dtype=str), return_counts=True)
    return {str(name): i + 1 for i, name in enumerate(names[counts >= MIN_CATEGORY_ROWS])}


def _values(rows: "Rows | pa.Table", name: str) -> list[Any]:
    """One column of a table or of a list of records."""
    if not isinstance(rows, Sequence):
        if name not in rows.column_names:
            raise ValueError(f"column {name!r} is missing; there are {rows.column_names}")
        return rows[name].to_pylist()
    for at, row in enumerate(rows):
        if name not in row:
            raise ValueError(f"row {at} lacks {name!r}; give null where it is not known")
    return [row[name] for row in rows]


def _number(rows: "Rows | pa.Table", name: str, ratios: list[Ratio]) -> Doubles:
    """A column or a ratio as float64, not-a-number where not known."""
    for ratio in ratios:
        if ratio.name == name:
            with np.errstate(divide="ignore", invalid="ignore"):
                above = _number(rows, ratio.numerator, [])
                return (np.sqrt(above) if ratio.is_square else above) / (_number(rows, ratio.denominator, []) + 1)
    if not isinstance(rows, Sequence) and name in rows.column_names:
        column = rows[name].to_numpy()
        if column.dtype.kind in "iuf":  # a table's column is checked by its type, without a look at every value
            return column.astype(np.float64)
    values = _values(rows, name)
    if wrong := [v for v in values if v is not None and not isinstance(v, int | float | np.number)]:
        raise ValueError(f"{name!r} holds a {type(wrong[0]).__name__}; it must be a number or null")
    return np.array(values, dtype=np.float64)


def _category(rows: "Rows | pa.Table", name: str) -> list[str]:
    """A column as strings; null is a value of its own."""
    return ["" if value is None else str(value) for value in _values(rows, name)]


def _text(rows: "Rows | pa.Table", name: str) -> list[str]:
    values = _values(rows, name)
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"row {at}: {name!r} is a {type(value).__name__}; it must be text")
    return values
