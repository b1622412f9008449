"""What serving a candidate takes; measured once and kept with the run: evaluating it again gives the same bytes."""

import statistics
import time
from pathlib import Path

import pyarrow as pa

from training.cascade import load
from training.evaluation import ServingCost

STORED = "cost.json"
NUM_EVENTS = 200
_MB = 1_000_000


def measure(run_dir: Path, rows: pa.Table) -> ServingCost:
    """The cost of a run's bundle; CPU time, not the clock's, so that a busy machine does not fail a candidate."""
    stored = run_dir / STORED
    if not stored.exists():
        scorer, times = load(run_dir / "bundle"), []
        for row in rows.to_pylist():
            begun = time.process_time()
            scorer.score([row])
            times.append(time.process_time() - begun)
        size = sum(path.stat().st_size for path in (run_dir / "bundle").rglob("*") if path.is_file())
        cost = ServingCost(bundle_mb=size / _MB, event_ms=1000 * statistics.median(times))
        stored.write_text(cost.model_dump_json(), encoding="utf-8")
    return ServingCost.model_validate_json(stored.read_bytes())
