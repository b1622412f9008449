"""Keeps texts that nearly repeat one of a more protected split out of a run: before training, and counted on the card.

MinHash over character shingles of the normalised text (Broder, 1997), by `datasketch`, finds what may be similar; the
shingles themselves decide. Protected in the order test, calibration, validation: a row stays where its text is needed
most, and goes elsewhere. `python -m training.near_duplicates RUN_DIR` looks for them before several nodes train.
"""

import sys
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.detector import DetectorSpec
from training.text import normalise

if TYPE_CHECKING:
    from datasketch import MinHash

STORED = "near_duplicates.parquet"
_ORDER = ("test", "calibration", "validation", "train")
_SHINGLE = 5  # characters
_LONGEST = 2000  # characters that are looked at
_NUM_PERMUTATIONS = 64
_SOUGHT, _WEIGHTS = 0.85, (0.2, 0.8)  # of the limit; of false and missed ones: 99.7 % at a limit of 0.9 are sought out
_MOST_VERIFIED = 16  # of the texts that may be similar, the likeliest first


def find(run_dir: Path) -> None:
    """Write which rows of a run's training set nearly repeat another one; once, and only where the detector asks."""
    if not are_sought(run_dir):
        return
    spec, path = _spec(run_dir), run_dir / STORED
    assert spec.text is not None
    assert spec.max_similarity is not None
    rows = pq.read_table(run_dir / "training_set.parquet", columns=["event_id", "split", spec.text])
    found = list(_repeats(rows, spec.text, limit=spec.max_similarity))
    columns = {"event_id": pa.string(), "split": pa.string(), "repeats": pa.string()}
    partial = path.with_name(f"partial.{path.name}")
    pq.write_table(pa.Table.from_pylist(found, pa.schema(list(columns.items()))), partial)
    partial.replace(path)


def are_sought(run_dir: Path) -> bool:
    """Whether the detector asks for them, and nobody has looked yet."""
    spec = _spec(run_dir)
    return spec.text is not None and spec.max_similarity is not None and not (run_dir / STORED).exists()


def _spec(run_dir: Path) -> DetectorSpec:
    return DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())


def read_kept(training_set: Path, columns: list[str] | None = None) -> pa.Table:
    """A training set without the rows that were found in it; what lies beside it says which."""
    rows = pq.read_table(training_set, columns=columns)
    path = training_set.with_name(STORED)
    if not path.exists():
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["event_id"], pq.read_table(path)["event_id"].combine_chunks())))


def count(run_dir: Path) -> dict[str, int]:
    """How many rows of each split were left out."""
    path = run_dir / STORED
    splits = pq.read_table(path)["split"].to_pylist() if path.exists() else []
    return {split: splits.count(split) for split in _ORDER}


def _repeats(rows: pa.Table, text: str, *, limit: float) -> Iterator[dict[str, str]]:
    known = _Known(limit)
    for split in _ORDER:
        part = rows.filter(pc.equal(rows["split"], split))
        fresh = []
        for event_id, value in zip(part["event_id"].to_pylist(), part[text].to_pylist(), strict=True):
            plain = normalise(value[:_LONGEST]).encode()
            signature = _signature(plain)
            if (repeated := known.repeated_by(plain, signature)) is not None:
                yield {"event_id": event_id, "split": split, "repeats": repeated}
            elif split != "train":
                fresh.append((event_id, plain, signature))
        for one in fresh:
            known.add(*one)


class _Known:
    """The texts that are protected already; identical ones count as one."""

    def __init__(self, limit: float) -> None:
        from datasketch import MinHashLSH  # 0.3 s and scipy, which a fit does not need

        self.limit = limit
        self.least_estimate = limit - 3 * np.sqrt(limit * (1 - limit) / _NUM_PERMUTATIONS)  # standard deviations
        self.index = MinHashLSH(_SOUGHT * limit, _NUM_PERMUTATIONS, weights=_WEIGHTS)
        self.event_ids: dict[bytes, str] = {}
        self.texts: list[bytes] = []
        self.values = np.empty((1024, _NUM_PERMUTATIONS), np.uint32)

    def add(self, event_id: str, plain: bytes, signature: "MinHash") -> None:
        if plain in self.event_ids:
            return
        at = len(self.texts)
        if at == len(self.values):
            self.values = np.concatenate([self.values, np.empty_like(self.values)])
        self.index.insert(at, signature, check_duplication=False)
        self.values[at] = signature.hashvalues
        self.texts.append(plain)
        self.event_ids[plain] = event_id

    def repeated_by(self, plain: bytes, signature: "MinHash") -> str | None:
        """The event whose text this one repeats: the likeliest of the first that are found to be so."""
        if plain in self.event_ids:
            return self.event_ids[plain]
        found = np.sort(np.array(self.index.query(signature), np.int64))
        estimates = (self.values[found] == signature.hashvalues.astype(np.uint32)).mean(1)
        likely = np.argsort(-estimates, kind="stable")[:_MOST_VERIFIED]
        for at in found[likely[estimates[likely] >= self.least_estimate]]:
            if _similarity(plain, self.texts[at]) >= self.limit:
                return self.event_ids[self.texts[at]]
        return None


def _similarity(one: bytes, other: bytes) -> float:
    ours, theirs = _shingles(one), _shingles(other)
    return len(ours & theirs) / len(ours | theirs)


@lru_cache(maxsize=256)
def _shingles(plain: bytes) -> frozenset[bytes]:
    return frozenset(plain[at : at + _SHINGLE] for at in range(max(1, len(plain) - _SHINGLE + 1)))


def _signature(plain: bytes) -> "MinHash":
    from datasketch import MinHash

    signature = MinHash(_NUM_PERMUTATIONS, hashfunc=zlib.crc32)
    signature.update_batch(list(_shingles(plain)))
    return signature


if __name__ == "__main__":
    find(Path(sys.argv[1]))
