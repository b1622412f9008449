"""How a detector does on a source that it has never seen: trained again without it, per source, and compared.

In domain a detector may know a source rather than a rule. Each fold is a run folder below `unseen/`, kept once trained;
its name is its source's, in the letters of a URL.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
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
_ALSO_NEEDED = ("train", "validation", "calibration")  # splits of which a fold must have rows


def check(run_dir: Path) -> None:
    """Raise ValueError where a source that the spec names cannot be left out, before anything is trained."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    if not spec.unseen_sources:
        return
    field, path = f"detector.unseen_sources is {spec.unseen_sources}", run_dir / "training_set.parquet"
    if "source" not in pq.read_schema(path).names:
        raise ValueError(f"{field}; the training set has no column 'source'")
    rows = read_kept(path, ["event_id", "split", "source"])
    known = sorted(pc.unique(rows["source"]).drop_null().to_pylist())
    if unknown := sorted(set(spec.unseen_sources) - set(known)):
        raise ValueError(f"{field}; {unknown} are not among the sources of the training set, {known}")
    for source in spec.unseen_sources:
        left = pc.unique(_without(rows, source)["split"]).to_pylist()
        if lacking := [split for split in _ALSO_NEEDED if split not in left]:
            raise ValueError(f"{field}; without {source!r}, of {known}, no row is left in {', '.join(lacking)}")


def fold_of(run_dir: Path, source: str) -> Path:
    """The run folder of a source that is left out."""
    return run_dir / FOLDER / quote(source, safe="").replace(".", "%2E")


def train_folds(run_dir: Path, *, train: Callable[[Path], None]) -> None:
    """Train the detector once more for each source that its spec names, on rows without that source."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    for source in spec.unseen_sources:
        fold = fold_of(run_dir, source)
        if not (fold / "predictions.parquet").exists():
            _lay_out(fold, run_dir, spec, source=source)
            train(fold)


def _lay_out(fold: Path, run_dir: Path, spec: DetectorSpec, *, source: str) -> None:
    fold.mkdir(parents=True, exist_ok=True)
    alone = spec.model_copy(update={"unseen_sources": []})
    (fold / "detector.json").write_text(alone.model_dump_json(indent=1), encoding="utf-8")
    rows = _without(read_kept(run_dir / "training_set.parquet"), source)
    pq.write_table(rows, fold / "training_set.parquet")


def _without(rows: pa.Table, source: str) -> pa.Table:
    """The rows of other sources, and the test split whole."""
    is_other = pc.fill_null(pc.not_equal(rows["source"], source), True)
    return rows.filter(pc.or_(is_other, pc.equal(rows["split"], "test")))


def measure_unseen_sources(run_dir: Path, spec: DetectorSpec, test: Predictions) -> list[UnseenSourceEvaluation]:
    """Per source and label: its violations against every benign test row, by both detectors, or why they are not."""
    draws = draw_replicates(int(test.entities.max(initial=-1)) + 1)
    return [one for source in spec.unseen_sources for one in _measure(run_dir, spec, test, source=source, draws=draws)]


def _measure(
    run_dir: Path, spec: DetectorSpec, test: Predictions, *, source: str, draws: NDArray[np.uint8]
) -> Iterator[UnseenSourceEvaluation]:
    fold = fold_of(run_dir, source)
    if not (fold / "predictions.parquet").exists():
        yield from (UnseenSourceEvaluation(source=source, label=one, why="no fold was trained") for one in spec.labels)
        return
    unseen = _logits(fold, spec, test)
    is_there = test.slices["source"] == source
    for at, label in enumerate(spec.labels):
        known = test.known(label)
        rows = is_there[known] | (test.verdicts[known, at] == 0)
        sides = [test.sample(label, logits).where(rows) for logits in (unseen, test.logits)]
        found = UnseenSourceEvaluation(source=source, label=label, num_positives=int(sides[0].labels.sum()))
        if found.num_positives < spec.gate.min_positives:
            yield found.model_copy(update={"why": f"fewer than {spec.gate.min_positives} violations"})
            continue
        without, with_it = (replicate(side, draws) for side in sides)
        estimates = {
            "average_precision": estimate(without["average_precision"]),
            "average_precision_seen": estimate(with_it["average_precision"]),
            "recall_at_1pct_fpr": estimate(without["recall_at_1pct_fpr"]),
            "recall_at_1pct_fpr_seen": estimate(with_it["recall_at_1pct_fpr"]),
        }
        yield found.model_copy(update=estimates)


def _logits(fold: Path, spec: DetectorSpec, test: Predictions) -> Floats:
    """The fold's logits of the same rows, in the same order."""
    found = predictions.read(fold, spec).of("test")
    position = {event_id: i for i, event_id in enumerate(found.event_ids)}
    return found.logits[[position[event_id] for event_id in test.event_ids]]
