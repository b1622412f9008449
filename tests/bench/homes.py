"""A home with a deployed n-gram detector of production size, and real texts to send to it."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.auth import create_key, read_keys
from serving.bundle import Bundle
from tests.bench.harness import DATA
from tests.serving.service.conftest import Team
from tests.training.conftest import text_spec, texts, write_run
from training.detector import DetectorSpec, Gate, Promise
from training.evaluate import evaluate_run
from training.export import complete
from training.fit import fit

MAX_CHARACTERS = 4000


def ngram_spec(*, reads_features: bool = False) -> DetectorSpec:
    """The shipped content detector's sizes; what it learns does not matter here, only what it costs."""
    sizes = {"num_buckets": 1 << 18, "max_epochs": 3}
    unattacked = Gate(min_seen_kept=0, min_unseen_kept=0, max_twin_ratio=1e9)
    changes: dict[str, object] = {"promises": {"fraud_spam": Promise(limit=0.1)}, "gate": unattacked}
    if reads_features:
        changes |= {"numbers": ["account_age_s"], "categories": ["plan"]}
    return text_spec(**sizes).model_copy(update=changes)


def trained(folder: Path, spec: DetectorSpec) -> Path:
    """A run folder from fit to verdict."""
    rows, rng = texts(8000), np.random.default_rng(5)
    rows = rows.append_column("account_age_s", pa.array(rng.lognormal(12, 2, len(rows))))
    rows = rows.append_column("plan", pa.array(rng.choice(["free", "paid"], len(rows))))
    run_dir = write_run(folder / "run", spec, rows=rows)
    fit(run_dir)
    complete(run_dir / "bundle")
    (run_dir / "training_set.json").write_text(json.dumps({"num_rows": 8000, "cutoff_us": 1}))
    evaluate_run(run_dir)
    return run_dir


def deployed(home: Path, run_dir: Path, spec: DetectorSpec) -> tuple[Team, Bundle, Bundle]:
    """A home in which the run was sealed, signed by two people and deployed; (team, release, policy)."""
    home.mkdir(parents=True)
    team = Team(home)
    release, policy = team.seal(run_dir), team.seal_policy(spec)
    team.sign(release, policy)
    team.deploy(release, policy)
    return team, release, policy


def api_key(home: Path) -> str:
    """A key without a rate limit that a benchmark could reach."""
    path = home / "api_keys.json"
    secret = create_key(path, "bench", scopes=["decide", "bulk", "read"])
    keys = [msgspec.structs.replace(key, per_second=1e6, burst=10**6) for key in read_keys(path)]
    path.write_bytes(msgspec.json.encode(keys))
    return secret


def real_texts(num: int) -> list[str]:
    """Texts of the content set, from one place of it."""
    file = pq.ParquetFile(DATA / "content_mix" / "data.parquet")
    rows = next(file.iter_batches(batch_size=num, columns=["text"]))
    return [text[:MAX_CHARACTERS] for text in rows["text"].to_pylist()]
