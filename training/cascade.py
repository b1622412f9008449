"""A cascade: a network's first member answers alone where it is sure, and all members together about the rest.

Numpy and ONNX Runtime, like the scorers that it is made of. What the first member finds likely is rare in a stream, so
all of that goes on to the whole network, too: only what is surely benign ends early. Each of the two has a calibration
of its own, so that a probability means the same wherever it comes from; merged raw scores lowered average precision.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from training.detector import DetectorSpec
from training.encoder import Doubles, Encoder, Floats, Rows
from training.scorer import Scorer, probabilities
from training.vectors import open_graph

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_GRAPH = "first.onnx"
STORED = "cascade.json"  # [a, b, cut] per label: a record goes on where a * logit + b >= cut; null: it never does
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Cascade:
    """Scores as a `Scorer` does; safe to share between threads, and the same to the last bit alone or in a batch."""

    first: Scorer
    whole: Scorer
    cuts: Doubles  # [L], in log-odds of the first

    @classmethod
    def of(cls, whole: Scorer, bundle: Path) -> Self:
        """Put the first member of a bundle's network before it."""
        stored = json.loads((bundle / STORED).read_text(encoding="utf-8"))
        rows = [stored[label] for label in whole.spec.labels]
        scaling = np.array([(a, b) for a, b, _ in rows])
        cuts = np.array([np.inf if cut is None else cut for *_, cut in rows])
        return cls(first_of(whole, bundle, scaling=scaling), whole, cuts)

    @property
    def spec(self) -> DetectorSpec:
        """The sealed spec of the release."""
        return self.whole.spec

    @property
    def encoder(self) -> Encoder:
        """How the whole network reads a record."""
        return self.whole.encoder

    def score(self, rows: "Rows | pa.Table") -> Floats:
        """Calibrated probabilities [N, L]."""
        return self.judge(rows)[0]

    def glance(self, rows: "Rows | pa.Table") -> tuple[Floats, Bools]:
        """What the first member says, and which records end early with that; the others are the whole network's."""
        odds = self.first.log_odds(rows)
        return probabilities(odds), ~goes_on(odds, self.cuts)

    def judge(self, rows: "Rows | pa.Table") -> tuple[Floats, Bools]:
        """Calibrated probabilities [N, L], and which records ended early."""
        scores, ends_early = self.glance(rows)
        others = np.flatnonzero(~ends_early)
        if len(others):
            asked = [rows[at] for at in others.tolist()] if isinstance(rows, Sequence) else rows.take(others)
            scores[others] = self.whole.score(asked)
        return scores, ends_early


def goes_on(odds: NDArray[Any], cuts: NDArray[Any]) -> Bools:
    """Which records [N] the whole network is asked about, by the first member's log-odds [N, L]."""
    return np.asarray((odds >= cuts).any(axis=1))


def first_of(whole: Scorer, bundle: Path, *, scaling: Doubles) -> Scorer:
    """The scorer that reads texts as the first member does, and no further."""
    spec, reader = whole.spec, whole.encoder.reader
    assert reader is not None
    member = spec.fit.members[0]
    alone = spec.fit.model_copy(update={"network": member, "members": []})
    return replace(
        whole,
        spec=spec.model_copy(update={"fit": alone}),
        encoder=replace(whole.encoder, reader=replace(reader, tokenizer=None) if member == "ngram" else reader),
        tables={member: whole.tables[member]},
        embedder=None,
        session=open_graph(bundle / FIRST_GRAPH),
        slopes=scaling[:, 0],
        intercepts=scaling[:, 1],
    )


def load(bundle: Path) -> Scorer | Cascade:
    """What a bundle answers with: its scorer, behind a cascade where one was sealed."""
    whole = Scorer.load(bundle)
    return Cascade.of(whole, bundle) if (bundle / STORED).exists() else whole
