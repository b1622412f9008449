"""The files in which a fit says how far it is: a JSON line for each value, read by whoever started it as they grow.

Imports nothing but the standard library: the process that only waits for a fit needs no torch.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CURVES, READING = "metrics.jsonl", "reading.jsonl"
Report = Callable[[int, int], None]  # how many are done, of how many


@dataclass(frozen=True)
class Reading:
    """How many passages a pretrained encoder has read, before the first step and after the last one."""

    path: Path

    def __call__(self, done: int, total: int) -> None:
        """Write it; of several ranks one does."""
        if os.environ.get("RANK", "0") != "0":
            return
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"name": "passages_read", "value": done, "of": total}) + "\n")


def new_lines(path: Path) -> Iterator[list[str]]:
    """Each time, the whole lines that were added to a file since; a file that was cut is read on from its end."""
    offset = 0
    while True:
        found = []
        if path.exists():
            with path.open(encoding="utf-8") as file:
                offset = min(offset, path.stat().st_size)
                file.seek(offset)
                while (line := file.readline()).endswith("\n"):
                    offset = file.tell()
                    found.append(line.strip())
        yield found
