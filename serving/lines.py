"""Cuts a stream into lines, and these into batches, in bounded memory."""

from collections.abc import Iterator

MAX_LINE = 1 << 20
MOST_LINES = 128
MOST_BYTES = 256 << 10  # in more than one line: 24 MB kept the scorer, and who waited for it, busy for 10 s

Batch = list[tuple[int, bytes]]  # lines that are not blank, with their numbers from 1 on


class Batches:
    """Lines as they arrive; a line over the limit comes as its first bytes, one more than it may have."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line that has not ended yet
        self._batch: Batch = []
        self._size = 0  # of the batch in bytes
        self._number = 0

    def add(self, chunk: bytes) -> Iterator[Batch]:
        """The batches that these bytes fill."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._keep(end)
            yield from self._line()
        self._keep(rest)

    def waiting(self) -> Iterator[Batch]:
        """The lines that wait for their batch to be filled."""
        if self._batch:
            yield self._batch
            self._batch, self._size = [], 0

    def end(self) -> Iterator[Batch]:
        """What is left, with a last line that no newline ends."""
        yield from self._line()
        yield from self.waiting()

    def _keep(self, data: bytes) -> None:
        self._rest += data[: MAX_LINE + 1 - len(self._rest)]

    def _line(self) -> Iterator[Batch]:
        line = bytes(self._rest)
        self._rest.clear()
        self._number += 1
        if line.strip() or len(line) > MAX_LINE:
            if self._size + len(line) > MOST_BYTES:
                yield from self.waiting()
            self._batch.append((self._number, line))
            self._size += len(line)
        if len(self._batch) == MOST_LINES:
            yield from self.waiting()
