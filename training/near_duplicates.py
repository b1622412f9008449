"""Keeps texts that nearly repeat one of a more protected split out of a run: before training, and counted on the card.

MinHash over character shingles of the normalised text (Broder, 1997), by `datasketch`. Protected in the order test,
calibration, validation: a row stays where its text is needed most, and goes elsewhere.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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


def find(run_dir: Path) -> None:
    """Write which rows of a run's training set nearly repeat another one; once, and only where the detector asks."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    path = run_dir / STORED
    if spec.text is None or spec.max_similarity is None or path.exists():
        return
    rows = pq.read_table(run_dir / "training_set.parquet", columns=["event_id", "split", spec.text])
    found = list(_repeats(rows, spec.text, limit=spec.max_similarity))
    columns = {"event_id": pa.string(), "split": pa.string(), "repeats": pa.string()}
    partial = path.with_name(f"partial.{path.name}")
    pq.write_table(pa.Table.from_pylist(found, pa.schema(list(columns.items()))), partial)
    partial.replace(path)


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
    from datasketch import MinHashLSH  # 0.3 s and scipy, which a fit does not need

    known = MinHashLSH(threshold=limit, num_perm=_NUM_PERMUTATIONS)
    signatures: dict[str, MinHash] = {}
    for split in _ORDER:
        part = rows.filter(pc.equal(rows["split"], split))
        fresh = {}
        for event_id, value in zip(part["event_id"].to_pylist(), part[text].to_pylist(), strict=True):
            signature = _signature(value)
            near = (other for other in known.query(signature) if signatures[other].jaccard(signature) >= limit)
            if (repeated := next(near, None)) is not None:
                yield {"event_id": event_id, "split": split, "repeats": repeated}
            elif split != "train":
                fresh[event_id] = signature
        for event_id, signature in fresh.items():
            known.insert(event_id, signature, check_duplication=False)
        signatures |= fresh


def _signature(text: str) -> "MinHash":
    from datasketch import MinHash

    plain = normalise(text[:_LONGEST]).encode()
    shingles = {plain[at : at + _SHINGLE] for at in range(max(1, len(plain) - _SHINGLE + 1))}
    signature = MinHash(_NUM_PERMUTATIONS, hashfunc=zlib.crc32)
    signature.update_batch(list(shingles))
    return signature
