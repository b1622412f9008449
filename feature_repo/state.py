"""The online state of one entity in one windowed view: how it takes in facts, and the 64-bit words it is kept as.

A state sums every fact it knows per grain of each window. Facts from its horizon on can come in any order; the last
`TAIL` of them are also kept one by one, so that whoever asks at a moment in their midst can take off what came later.
Values are told apart by a 64-bit hash.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from struct import error, pack
from typing import Any, NamedTuple

from feature_repo.view import DAY, View, Window

TAIL = 32
LOOK_BACK_US = DAY  # before the last fact; a state forgets the cells that no later moment asks for
NEVER = -1
HEAD = 4  # horizon, last fact, last fact that is not in the tail, rows of the tail; then the lengths of all series
WRAP = 1 << 64
Words = Sequence[int]
_US = itemgetter(0)


class Fact(NamedTuple):
    """What one event says in one view: `sums` and `values` in the order of the view's own."""

    us: int
    id: int
    sums: tuple[int, ...] = ()
    values: tuple[Any, ...] = ()


def hash64(text: str) -> int:
    """A signed 64-bit hash: two of a million ids collide with a probability of 3e-8."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True)
class Shape:
    """How the states of a view are laid out."""

    view: View

    @cached_property
    def windows(self) -> list[Window]:
        """A series of [count, *sums] for each."""
        return self.view.windows

    @cached_property
    def distincts(self) -> list[tuple[int, int]]:
        """(place among the view's values, grain) of each column with a series of its own: values by last sighting."""
        grains: dict[str, int] = {}
        for m in self.view.measures:
            if m.kind == "distinct" and m.of:
                grains[m.of] = min([grains.get(m.of, DAY), *(w.grain_us for w in m.windows)])
        return [(self.view.values.index(column), grain) for column, grain in sorted(grains.items())]

    @cached_property
    def num_columns(self) -> int:
        """The count, and one per sum."""
        return 1 + len(self.view.sums)

    @cached_property
    def head(self) -> int:
        """Words before the first series."""
        return HEAD + len(self.windows) + len(self.distincts)

    @cached_property
    def row(self) -> int:
        """Words of one fact of the tail: us, id, sums, and (value, its sighting before) per distinct column."""
        return 2 + len(self.view.sums) + 2 * len(self.distincts)


@dataclass
class State:
    """`cells`: per window, grain start -> [count, *sums]; `seen`: per distinct column, value -> its last sighting."""

    shape: Shape
    horizon_us: int = 0
    settled_us: int = NEVER
    cells: list[dict[int, list[int]]] = field(default_factory=list)
    seen: list[dict[int, int]] = field(default_factory=list)
    tail: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cells = self.cells or [{} for _ in self.shape.windows]
        self.seen = self.seen or [{} for _ in self.shape.distincts]

    def copy(self) -> "State":
        """Another one that is moved by itself."""
        cells = [{grain: list(cell) for grain, cell in cells.items()} for cells in self.cells]
        seen, tail = [dict(values) for values in self.seen], [list(row) for row in self.tail]
        return State(self.shape, self.horizon_us, self.settled_us, cells, seen, tail)

    @property
    def last_us(self) -> int:
        """When the last fact happened."""
        return max(self.settled_us, self.tail[-1][0] if self.tail else NEVER)

    def holds(self, fact_id: int) -> bool:
        """Whether a fact is among the last ones; of older ones only the store knows the ids."""
        return any(row[1] == fact_id for row in self.tail)

    def push(self, fact: Fact) -> bool:
        """Take in a fact that is not known yet; False if it lies before the horizon, where the lake answers for it."""
        if fact.us < self.horizon_us:
            return False
        for window, cells in zip(self.shape.windows, self.cells, strict=True):
            cell = cells.setdefault(fact.us - fact.us % window.grain_us, [0] * self.shape.num_columns)
            cell[:] = [a + b for a, b in zip(cell, (1, *fact.sums), strict=True)]
        sightings = chain.from_iterable(
            self._sight(at, fact.values[place], fact.us) for at, (place, _) in enumerate(self.shape.distincts)
        )
        insort(self.tail, [fact.us, fact.id, *fact.sums, *sightings], key=_US)
        if len(self.tail) > TAIL:
            self.settled_us = max(self.settled_us, self.tail.pop(0)[0])
        return True

    def _sight(self, at: int, value: int | None, us: int) -> tuple[int, int]:
        """Note a value, and return it with its last sighting before this one."""
        if value is None:
            return 0, NEVER
        column = self.shape.row - 2 * (len(self.shape.distincts) - at)
        before = self.seen[at].get(value, NEVER)
        self.seen[at][value] = max(before, us)
        same = [row for row in self.tail if row[column] == value]
        place = bisect_right(same, us, key=_US)
        if place < len(same):
            before, same[place][column + 1] = same[place][column + 1], max(same[place][column + 1], us)
        return value, same[place - 1][0] if place else before

    def to_bytes(self) -> tuple[bytes, bytes]:
        """What requests read, and the sightings that only the next fact needs; what no moment asks for is left out."""
        since_us = max(self.horizon_us, self.last_us - LOOK_BACK_US)
        series: list[list[int]] = []
        for window, cells in zip(self.shape.windows, self.cells, strict=True):
            kept = sorted(grain for grain in cells if grain >= window.start(since_us))
            series.append(_series(kept, [cells[grain] for grain in kept], self.shape.num_columns))
        far_us = self.shape.windows[-1].start(since_us)
        seen = [{value: us for value, us in values.items() if us >= far_us} for values in self.seen]
        for (_, grain), values in zip(self.shape.distincts, seen, strict=True):
            last = sorted(us - us % grain for us in values.values())
            starts = sorted(set(last))
            ends = [bisect_right(last, start) for start in starts]
            series.append(_series(starts, [[b - a] for a, b in pairwise([0, *ends])], 1))
        lengths = [len(words) // (columns + 1) for words, columns in zip(series, self._columns, strict=True)]
        head = [self.horizon_us, self.last_us, self.settled_us, len(self.tail), *lengths]
        return _packed(chain(head, *series, *self.tail)), _packed(_listed(seen))

    @classmethod
    def from_words(cls, shape: Shape, words: Words, seen: Words) -> "State":
        """Read what `to_bytes` wrote."""
        state = cls(shape, horizon_us=words[0], settled_us=words[2])
        at = shape.head
        for number, cells in enumerate(state.cells):
            length = words[HEAD + number]
            starts, at = words[at : at + length], at + length
            totals = []
            for _ in range(shape.num_columns):
                totals.append([(b - a) % WRAP for a, b in pairwise(words[at : at + length + 1])])
                at += length + 1
            cells.update(zip(starts, map(list, zip(*totals, strict=True)), strict=True))
        at = tail_start(shape, words)
        state.tail = [list(words[row : row + shape.row]) for row in range(at, at + words[3] * shape.row, shape.row)]
        state.seen = _unlisted(seen, len(shape.distincts))
        return state

    @property
    def _columns(self) -> list[int]:
        return [self.shape.num_columns] * len(self.shape.windows) + [1] * len(self.shape.distincts)


def _series(starts: list[int], cells: list[list[int]], num_columns: int) -> list[int]:
    """The grains, and per column the running total before each and after the last."""
    columns = zip(*cells, strict=True) if cells else [()] * num_columns
    return list(chain(starts, *(accumulate(column, initial=0) for column in columns)))


def _listed(seen: Iterable[dict[int, int]]) -> Iterable[int]:
    return chain.from_iterable(chain([len(values)], *values.items()) for values in seen)


def _unlisted(words: Words, num: int) -> list[dict[int, int]]:
    seen, at = [], 0
    for _ in range(num):
        end = at + 1 + 2 * words[at] if words else at
        seen.append(dict(zip(words[at + 1 : end : 2], words[at + 2 : end : 2], strict=True)))
        at = end
    return seen


def _packed(words: Iterable[int]) -> bytes:
    """The words; a running total of over 63 bits wraps around, which leaves what is taken of it right modulo 2^64."""
    listed = list(words)
    try:
        return pack(f"<{len(listed)}q", *listed)
    except error:
        return pack(f"<{len(listed)}Q", *(word % WRAP for word in listed))


def tail_start(shape: Shape, words: Words) -> int:
    """Where the facts that are kept one by one begin; behind them there may be the mark of a store."""
    at = shape.head
    for number in range(len(shape.windows)):
        at += words[HEAD + number] * (1 + shape.num_columns) + shape.num_columns
    for number in range(len(shape.windows), len(shape.windows) + len(shape.distincts)):
        at += 2 * words[HEAD + number] + 1
    return at


def last_before(words: Words, shape: Shape, at_us: int) -> tuple[int, range]:
    """The last fact before a moment, and where the tail's facts from that moment on begin."""
    first = tail_start(shape, words)
    rows = range(first, first + words[3] * shape.row, shape.row)
    place = bisect_left(rows, at_us, key=lambda row: words[row])
    return (words[rows[place - 1]] if place else words[2]), rows[place:]
