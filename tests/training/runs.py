"""Stored runs without a network: a training set and generated predictions, for what only reads those."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.detector import DetectorSpec, Gate
from training.policy import Promise

DAY_US = 86_400_000_000
SPLITS = ("train", "validation", "calibration", "test")
SHARES = (0.4, 0.15, 0.2, 0.25)


def generated_spec(**changes: object) -> DetectorSpec:
    fields: dict[str, object] = {
        "name": "payment_fraud",
        "description": "A stolen card is used.",
        "owners": ["team:payments"],
        "policy": "payments",
        "events": "payments",
        "labels": ["fraud", "card_testing"],
        "promises": {"fraud": Promise(limit=0.02)},
        "feature_service": "payment_v2",
        "numbers": ["amount"],
        "slices": ["plan"],
        "gate": Gate(min_average_precision=0.3),
    }
    return DetectorSpec.model_validate({**fields, **changes})


def write_stored_run(
    run_dir: Path, spec: DetectorSpec, *, num_rows: int = 4000, signal: float = 3.0, seed: int = 0, noise_seed: int = 1
) -> Path:
    """Rows of `seed`; `signal` and `noise_seed` tell one detector's logits from another's on the same rows."""
    generator = np.random.default_rng(seed)
    noise = np.random.default_rng(noise_seed)
    event_us = np.sort(generator.integers(0, 40 * DAY_US, num_rows)) + 1_750_000_000_000_000
    splits = np.repeat(SPLITS, (np.array(SHARES) * num_rows).astype(int))
    rows = {
        "event_id": [f"event-{i}" for i in range(num_rows)],
        "split": splits,
        "event_us": event_us,
        "account_id": [
            None if i % 50 == 0 else f"account-{generator.integers(0, num_rows // 4)}" for i in range(num_rows)
        ],
        "card_id": [f"card-{generator.integers(0, num_rows // 3)}" for i in range(num_rows)],
        "amount": generator.gamma(2.0, 20.0, num_rows),
        "plan": generator.choice(["free", "trial", "paid"], num_rows),
        "entity_seen": generator.random(num_rows) < 0.8,
        "sampling_probability": np.ones(num_rows),
    }
    logits, verdicts = {}, {}
    for label in spec.labels:
        is_violation = generator.random(num_rows) < 0.08
        is_known = generator.random(num_rows) < 0.95
        logits[f"logit_{label}"] = (signal * is_violation + noise.normal(size=num_rows) - 2).astype(np.float32)
        verdicts[label] = pa.array(is_violation.astype(np.int8), mask=~is_known)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "bundle").mkdir(exist_ok=True)
    (run_dir / "detector.json").write_text(spec.model_dump_json())
    (run_dir / "bundle" / "spec.json").write_text(spec.model_dump_json())
    pq.write_table(pa.table({**rows, **verdicts}), run_dir / "training_set.parquet")
    stored = {name: rows[name] for name in ("event_id", "split", "plan", "account_id")}
    pq.write_table(pa.table({**stored, **verdicts, **logits}), run_dir / "predictions.parquet")
    return run_dir
