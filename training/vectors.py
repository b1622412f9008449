"""Vectors of passages from a pretrained encoder: an ONNX graph, and a file in which each is computed only once.

Numpy and ONNX Runtime; no torch. Windows are computed one at a time, without padding: a passage then has the same
vector to the last bit whatever stands beside it, which a graph in int8 would not give (the scale of its activations is
that of the whole batch). A batch of 16 saved a sixth of the time of short windows and none of long ones.
"""

import fcntl
import hashlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort

from training.encoder import Floats
from training.reader import Bags, windows
from training.reports import Report

GRAPH = "encoder.onnx"  # the pretrained encoder of a bundle, frozen or tuned
CHUNK = 2000  # passages between two commits: what a killed run loses at most


@dataclass(frozen=True)
class Embedder:
    """A graph from the `pieces` of one window, int64 [1, T], to its `vector` [1, E]; safe to share between threads.

    The vector of a passage is the mean over its windows, each weighted by its pieces.
    """

    session: ort.InferenceSession
    size: int

    @classmethod
    def load(cls, graph: Path) -> Self:
        """Read a graph; one thread runs it."""
        session = open_graph(graph)
        return cls(session, session.get_outputs()[0].shape[1])

    def vectors(self, passages: Bags) -> Floats:
        """One vector per passage [P, E]."""
        result = np.zeros((len(passages), self.size), np.float32)
        for at in range(len(passages)):
            parts = windows(passages.ids[passages.bounds[at] : passages.bounds[at + 1]])
            vectors = np.stack([self.session.run(None, {"pieces": window[None]})[0][0] for window in parts])
            sizes = np.array([len(window) for window in parts], np.float32)
            result[at] = vectors[0] if len(parts) == 1 else sizes / sizes.sum() @ vectors
        return result


def open_graph(path: Path) -> ort.InferenceSession:
    """A session of one thread: sums in one order, and no thread that spins while others have work."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class VectorCache:
    """SQLite files, one per graph, of vectors by the digest of a passage's pieces; a killed run goes on from there."""

    folder: Path

    def vectors(self, graph: Path, passages: Bags, *, report: Report) -> Floats:
        """As `Embedder.vectors`, on all cores, computing only what no run has computed before, and reporting it."""
        with graph.open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        keys = [_digest(passages, at) for at in range(len(passages))]
        with sqlite3.connect(self.folder / f"{name}.sqlite", timeout=600) as store:
            self._prepare(store)
            known = {key for (key,) in store.execute("SELECT key FROM vectors")}
            rows = {key: at for at, key in enumerate(keys) if key not in known}
            embedder = Embedder.load(graph)
            self._compute(store, embedder, passages.take(np.array(list(rows.values()), np.int64)), report=report)
            result = np.zeros((len(keys), embedder.size), np.float32)
            for at, key in enumerate(keys):
                result[at] = np.frombuffer(
                    store.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()[0], np.float32
                )
        return result

    def _prepare(self, store: sqlite3.Connection) -> None:
        """One process at a time: who changes the mode of a new file while another does is refused without a wait."""
        with (self.folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            store.execute("PRAGMA journal_mode = WAL")
            store.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")

    def _compute(self, store: sqlite3.Connection, embedder: Embedder, passages: Bags, *, report: Report) -> None:
        """Add what is missing, a chunk and a commit at a time."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(0, len(passages), CHUNK):
                chunk = passages.slice(first, min(first + CHUNK, len(passages)))
                alone = [chunk.slice(at, at + 1) for at in range(len(chunk))]
                vectors = pool.map(embedder.vectors, alone)
                pairs = [(_digest(one, 0), vector.tobytes()) for one, vector in zip(alone, vectors, strict=True)]
                store.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", pairs)
                store.commit()
                report(first + len(chunk), len(passages))


def _digest(passages: Bags, at: int) -> bytes:
    pieces = passages.ids[passages.bounds[at] : passages.bounds[at + 1]]
    return hashlib.blake2b(pieces.tobytes(), digest_size=16).digest()
