"""A detector's training as Dagster runs it, beside the bare command on the same run folder."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.detectors import read_detectors
from orchestration.settings import DEFS, Settings
from orchestration.stages import shelf
from tests.bench.harness import IS_SMALL, interleave, median_ratio
from training.detector import DetectorSpec

DETECTOR = "payment_fraud"
NUM_ROWS = 4_000 if IS_SMALL else 200_000  # two thirds of a month of the handbook's payments
ROUNDS = 1 if IS_SMALL else 2
SPLITS = ("train", "validation", "calibration", "test")
_CANDIDATE = """
from orchestration.runs import run_detector
from orchestration.settings import Settings
print(run_detector(Settings.from_environment(), {detector!r}, stages=["candidate"]).line)
"""


def payments(spec: DetectorSpec) -> pa.Table:
    """Generated rows with every column that the shipped detector reads; fraud is a payment far above the usual."""
    rng = np.random.default_rng(0)
    numbers = {name: rng.lognormal(2, 1, NUM_ROWS) for name in spec.numbers}
    ratio = numbers["amount"] / numbers["mean_amount_30d"]
    is_fraud = (ratio > np.quantile(ratio, 0.97)) ^ (rng.random(NUM_ROWS) < 0.005)
    facts = {
        "event_id": [f"p{at}" for at in range(NUM_ROWS)],
        "event_us": np.arange(NUM_ROWS) * 1_000_000,
        "account_id": [f"a{at % 997}" for at in range(NUM_ROWS)],
        "sampling_probability": np.ones(NUM_ROWS),
        "split": np.repeat(SPLITS, np.array([6, 1, 1, 2]) * NUM_ROWS // 10),
        "entity_seen": rng.random(NUM_ROWS) < 0.8,
    }
    return pa.table({**facts, **numbers, "fraud": is_fraud.astype(np.int8)})


@dataclass(frozen=True)
class Orchestrated:
    """A home in which a training set lies ready, and the run folders that are trained from it."""

    home: Path

    @classmethod
    def of(cls, home: Path) -> "Orchestrated":
        """Lay out the training set of the shipped detector."""
        settings, rows = Settings(home), payments(read_detectors(DEFS)[DETECTOR].spec)
        folder = shelf.new(settings.training_sets / DETECTOR, "generated")
        pq.write_table(rows, folder / "data.parquet")
        (folder / "manifest.json").write_bytes(orjson.dumps({"num_rows": len(rows), "cutoff_us": int(1e15)}))
        shelf.publish(folder)
        return cls(home)

    @property
    def environment(self) -> dict[str, str]:
        """Every store below this home."""
        return {**os.environ, "MEWS_HOME": str(self.home), "MLFLOW_TRACKING_URI": ""}

    def through_dagster(self) -> None:
        """The stage `candidate` in a fresh process: lay out, train, evaluate, draw the card, register in MLflow."""
        self._run("-c", _CANDIDATE.format(detector=DETECTOR))

    def bare(self) -> None:
        """The command that the stage starts, on the run folder that Dagster laid out before."""
        run_dir = self.home / "bare"
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.mkdir()
        laid_out = shelf.latest(Settings(self.home).runs / DETECTOR)
        for name in ("detector.json", "training_set.parquet", "training_set.json"):
            (run_dir / name).hardlink_to(laid_out / name)
        self._run("-m", "training.launch", str(run_dir), MLFLOW_TRACKING_URI=f"sqlite:///{self.home / 'bare.db'}")
        assert (run_dir / "metrics.jsonl").read_bytes() == (laid_out / "metrics.jsonl").read_bytes()

    def _run(self, *arguments: str, **environment: str) -> None:
        env = self.environment | environment
        subprocess.run([sys.executable, *arguments], check=True, env=env, stdout=subprocess.DEVNULL)


def orchestrated_vs_bare(home: Path) -> tuple[float, dict[str, list[float]]]:
    """Wall time of the stage over that of the bare command, in turn: the median of the rounds, and all of them."""
    runs = Orchestrated.of(home)
    costs = interleave({"dagster": runs.through_dagster, "bare": runs.bare}, repeats=ROUNDS)
    wall_s = {name: [one.wall_s for one in some] for name, some in costs.items()}
    return median_ratio(wall_s["dagster"], wall_s["bare"]), wall_s
