"""Turns records into model input: the one function that training and serving share. Numpy alone, but for word pieces.

A text becomes passages, each of which becomes bags of ids; everything else becomes one row of `dense` float32 columns:
numbers (quantile-normal, 0 where unknown) · is-missing flags of the numbers · category ids (0 = not seen).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from training.detector import DetectorSpec, Ratio
from training.passages import Said
from training.reader import Bags, Reader, bounds_of, positions

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]

NUM_QUANTILES = 1000
FARTHEST = 4.0  # standard deviations; an extreme value says no more than this
MIN_CATEGORY_ROWS = 10  # rarer values share the bucket of values not seen, which thereby is trained


@dataclass(frozen=True)
class Encoded:
    """Model input of N records: `dense` [N, D] and, of text, the `bags` of each passage.

    A frozen pretrained encoder adds its `vectors` [P, E].

    Record i owns the passages from `passages[i]` to `passages[i + 1]`; without a text each owns one that holds nothing.
    """

    dense: Floats
    passages: npt.NDArray[np.int64]
    bags: dict[str, Bags]
    vectors: Floats | None = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Of each passage, the number of its record."""
        return np.repeat(np.arange(len(self)), np.diff(self.passages))

    def take(self, rows: npt.NDArray[np.int64]) -> "Encoded":
        """The given records, in the given order."""
        at = positions(self.passages, rows)
        passages = bounds_of(self.passages[rows + 1] - self.passages[rows])
        bags = {name: bags.take(at) for name, bags in self.bags.items()}
        return Encoded(self.dense[rows], passages, bags, None if self.vectors is None else self.vectors[at])

    def slice(self, first: int, last: int) -> "Encoded":
        """Some neighbouring records, without copying."""
        if first == 0 and last >= len(self):
            return self
        passages = self.passages[first : last + 1]
        begin, end = passages[0], passages[-1]
        bags = {name: bags.slice(begin, end) for name, bags in self.bags.items()}
        vectors = None if self.vectors is None else self.vectors[begin:end]
        return Encoded(self.dense[first:last], passages - begin, bags, vectors)


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
        return np.interp(column, *self._points)

    @cached_property
    def _points(self) -> tuple[Doubles, Doubles]:
        """As arrays: to make them of the lists anew took longer than anything else about a number of one record."""
        return np.array(self.values), np.array(self.scores)


@dataclass(frozen=True)
class Encoder:
    """What was learned from the training rows about how to read a record; JSON is its only stored form."""

    reader: Reader | None
    ratios: list[Ratio]
    numbers: dict[str, QuantileNormal]
    categories: dict[str, dict[str, int]]

    @classmethod
    def fit(cls, rows: "Rows | pa.Table", spec: DetectorSpec, *, tokenizer: str | None = None) -> Self:
        """Learn quantiles and categories; give it the training split only, and a tokenizer for word pieces."""
        names = [*spec.numbers, *(ratio.name for ratio in spec.ratios)]
        return cls(
            reader=_reader(spec, tokenizer),
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

    @property
    def columns(self) -> set[str]:
        """What every record must bring."""
        derived = {ratio.name for ratio in self.ratios}
        sources = {name for ratio in self.ratios for name in (ratio.numerator, ratio.denominator)}
        text = {self.reader.column} if self.reader else set()
        return (self.numbers.keys() - derived) | sources | self.categories.keys() | text

    def encode(self, rows: "Rows | pa.Table") -> Encoded:
        """Encode records; a missing column or a value of the wrong type raises ValueError naming it."""
        dense = np.zeros((len(rows), self.width), np.float32)
        for at, (name, scale) in enumerate(self.numbers.items()):
            values = _number(rows, name, self.ratios)
            is_missing = np.isnan(values)
            dense[:, at] = np.where(is_missing, 0, scale.apply(values))
            dense[:, len(self.numbers) + at] = is_missing
        for at, (name, vocabulary) in enumerate(self.categories.items(), start=2 * len(self.numbers)):
            dense[:, at] = [vocabulary.get(value, 0) for value in _category(rows, name)]
        if self.reader is None:
            return Encoded(dense, np.arange(len(rows) + 1), {})
        return Encoded(dense, *self.reader.read(_said(rows, self.reader.column)))

    def to_json(self) -> str:
        """A form that `from_json` reads back without loss."""
        return json.dumps(
            {
                "reader": asdict(self.reader) if self.reader else None,
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
            reader=Reader(**stored["reader"]) if stored["reader"] else None,
            ratios=[Ratio(**ratio) for ratio in stored["ratios"]],
            numbers={name: QuantileNormal(*parts) for name, parts in stored["numbers"].items()},
            categories=stored["categories"],
        )


def _reader(spec: DetectorSpec, tokenizer: str | None) -> Reader | None:
    if spec.text is None:
        return None
    return Reader(spec.text, spec.fit.num_buckets if "ngram" in spec.fit.readers else None, tokenizer)


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


def _said(rows: "Rows | pa.Table", name: str) -> list[Said]:
    values = _values(rows, name)
    for at, value in enumerate(values):
        if not isinstance(value, str | list):
            raise ValueError(f"row {at}: {name!r} is a {type(value).__name__}; it must be text or a list of turns")
    return values
