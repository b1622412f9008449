"""Computes the features of a view at a moment from the words of a state: what every request does, so it is short.

A moment that a state cannot resolve (before its horizon, before all of the facts that it keeps one by one, or more than
a day before the last fact) is answered as the first one that it can.
"""

from bisect import bisect_left
from typing import Any

from feature_repo.state import HEAD, LOOK_BACK_US, WRAP, Shape, Words, last_before
from feature_repo.view import View


class Answers:
    """The features of one view, compiled from its measures once."""

    def __init__(self, view: View) -> None:
        self._shape = Shape(view)
        self._head, self._num_columns = self._shape.head, self._shape.num_columns
        self._num = sum(1 for _ in view.features)
        self._totals: list[list[tuple[int, int]]] = [[] for _ in self._shape.windows]
        self._means: list[list[tuple[int, int]]] = [[] for _ in self._shape.windows]
        self._distincts: list[list[tuple[int, int, int]]] = [[] for _ in self._shape.distincts]
        self._since: list[int] = []
        self._compile(view)
        self._windows = [
            (HEAD + number, window.span_us, window.grain_us, self._totals[number], self._means[number])
            for number, window in enumerate(view.windows)
        ]

    def _compile(self, view: View) -> None:
        columns = [view.values[place] for place, _ in self._shape.distincts]
        position = 0
        for measure in view.measures:
            for window in measure.windows:
                if measure.kind == "distinct":
                    output = (position, window.span_us, window.grain_us)
                    self._distincts[columns.index(str(measure.of))].append(output)
                elif measure.kind in ("count", "sum", "mean"):
                    column = 0 if measure.kind == "count" else 1 + view.sums.index(str(measure.of))
                    place = self._shape.windows.index(window)
                    self._totals[place].append((position, column))
                    if measure.kind == "mean":
                        self._means[place].append((position, measure.scale))
                else:
                    raise ValueError(f"a measure of kind {measure.kind!r} has no windows online")
                position += 1
            if not measure.windows:
                if measure.kind != "since":
                    raise ValueError(f"a measure of kind {measure.kind!r} needs windows online")
                self._since.append(position)
                position += 1

    def at(self, words: Words, at_us: int) -> list[Any]:
        """The value of each feature: what happened strictly before the moment counts."""
        at_us = max(at_us, words[0], words[2] + 1, words[1] - LOOK_BACK_US)
        last_us, later = words[1], range(0)
        if at_us <= last_us:
            last_us, later = last_before(words, self._shape, at_us)
        row: list[Any] = [None] * self._num
        base = self._sum(words, row, at_us=at_us, later=later)
        if self._distincts:
            self._count_values(words, row, base, at_us=at_us, later=later)
        _, longest_us, grain_us, _, _ = self._windows[-1]
        edge = at_us - longest_us
        for position in self._since if last_us >= edge - edge % grain_us else ():
            row[position] = (at_us - last_us) / 1_000_000
        return row

    def _sum(self, words: Words, row: list[Any], *, at_us: int, later: range) -> int:
        """Fill in what is summed over windows, and return where the next series begins."""
        base, num_columns = self._head, self._num_columns
        for number, span_us, grain_us, totals, means in self._windows:
            length = words[number]
            edge = at_us - span_us
            first = bisect_left(words, edge - edge % grain_us, base, base + length) + length  # of the column's totals
            last = base + 2 * length
            for position, column in totals:
                further = column * (length + 1)
                row[position] = words[last + further] - words[first + further]
                if later:
                    row[position] -= sum(words[fact + 1 + column] for fact in later) if column else len(later)
                if row[position] < 0:  # the running total wrapped around in between
                    row[position] += WRAP
            if means:
                num = words[last] - words[first] - len(later)
                for position, scale in means:
                    row[position] = row[position] / (num * scale) if num else None
            base = last + 1 + (num_columns - 1) * (length + 1)
        return base

    def _count_values(self, words: Words, row: list[Any], base: int, *, at_us: int, later: range) -> None:
        """A value is in a window exactly if its last sighting before the moment is."""
        first = HEAD + len(self._windows)
        for number, outputs in enumerate(self._distincts):
            length = words[first + number]
            before = self._seen_before(words, number, later) if later else ()
            for position, span_us, grain_us in outputs:
                edge = at_us - span_us
                start = edge - edge % grain_us
                totals = base + length
                place = bisect_left(words, start, base, totals) - base
                num = words[totals + length] - words[totals + place]
                row[position] = num - sum(us < start for us in before) if before else num
            base += 2 * length + 1

    def _seen_before(self, words: Words, number: int, later: range) -> list[int]:
        """Of each value that was seen from the moment on, when it had last been seen before."""
        offset = self._shape.row - 2 * (len(self._distincts) - number)
        earliest: dict[int, int] = {}
        for fact in later:
            earliest.setdefault(words[fact + offset], words[fact + offset + 1])
        earliest.pop(0, None)  # a fact without a value
        return list(earliest.values())
