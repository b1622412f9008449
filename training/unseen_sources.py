"""How a detector does on a source that it has never seen: trained again without it, per source, and compared.

In domain a detector may know a source rather than a rule. Each fold is a run folder below `unseen/`, kept once trained.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training import predictions
from training.detector import DetectorSpec
from training.evaluation import UnseenSourceEvaluation
from training.metrics import Floats, draw_replicates, estimate, replicate
from training.near_duplicates import read_kept
from training.predictions import Predictions

FOLDER = "unseen"


def train_folds(run_dir: Path, *, train: Callable[[Path], None]) -> None:
    """Train the detector once more for each source that its spec names, on rows without that source."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    for source in spec.unseen_sources:
        fold = run_dir / FOLDER / source
        if not (fold / "predictions.parquet").exists():
            _lay_out(fold, run_dir, spec, source=source)
            train(fold)


def _lay_out(fold: Path, run_dir: Path, spec: DetectorSpec, *, source: str) -> None:
    fold.mkdir(parents=True, exist_ok=True)
    alone = spec.model_copy(update={"unseen_sources": []})
    (fold / "detector.json").write_text(alone.model_dump_json(indent=1), encoding="utf-8")
    rows = read_kept(run_dir / "training_set.parquet")
    is_other = pc.fill_null(pc.not_equal(rows["source"], source), True)
    pq.write_table(rows.filter(pc.or_(is_other, pc.equal(rows["split"], "test"))), fold / "training_set.parquet")


def measure_unseen_sources(run_dir: Path, spec: DetectorSpec, test: Predictions) -> list[UnseenSourceEvaluation]:
    """Per source and label with enough violations: them against every benign test row, by both detectors."""
    draws = draw_replicates(int(test.entities.max(initial=-1)) + 1)
    return [
        one
        for source in spec.unseen_sources
        if (run_dir / FOLDER / source / "predictions.parquet").exists()
        for one in _measure(run_dir / FOLDER / source, spec, test, draws=draws)
    ]


def _measure(
    fold: Path, spec: DetectorSpec, test: Predictions, *, draws: NDArray[np.uint8]
) -> Iterator[UnseenSourceEvaluation]:
    unseen = _logits(fold, spec, test)
    is_there = test.slices["source"] == fold.name
    for at, label in enumerate(spec.labels):
        known = test.known(label)
        rows = is_there[known] | (test.verdicts[known, at] == 0)
        sides = [test.sample(label, logits).where(rows) for logits in (unseen, test.logits)]
        if sides[0].labels.sum() < spec.gate.min_positives:
            continue
        without, with_it = (replicate(side, draws) for side in sides)
        yield UnseenSourceEvaluation(
            source=fold.name,
            label=label,
            num_positives=int(sides[0].labels.sum()),
            average_precision=estimate(without["average_precision"]),
            average_precision_seen=estimate(with_it["average_precision"]),
            recall_at_1pct_fpr=estimate(without["recall_at_1pct_fpr"]),
            recall_at_1pct_fpr_seen=estimate(with_it["recall_at_1pct_fpr"]),
        )


def _logits(fold: Path, spec: DetectorSpec, test: Predictions) -> Floats:
    """The fold's logits of the same rows, in the same order."""
    found = predictions.read(fold, spec).of("test")
    position = {event_id: i for i, event_id in enumerate(found.event_ids)}
    return found.logits[[position[event_id] for event_id in test.event_ids]]
