"""A real detector with the real encoder, released alone and behind a cascade, and the stream that both are asked about.

The network is the mean of n-grams and a frozen MiniLM, trained on 20,000 rows of content_mix. Everything is chosen on
`validation`; the stream, 1 % of it violations, holds rows of `test` and benign instructions from a source of its own.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.bench.content_mix import AVERAGE, digest, read, sample
from tests.bench.harness import DATA, HOME, IS_SMALL
from training import cascade
from training.detector import Cascade, DetectorSpec, Gate
from training.evaluate import evaluate_run
from training.fit import fit
from training.metrics import Floats
from training.policy import Promise

LABEL = "any_violation"
SIZES = {"train": 20_000, "validation": 3000, "calibration": 3600}
SMALL = {"train": 600, "validation": 400, "calibration": 450}
NUM_GATED = 150 if IS_SMALL else 600  # of the calibration rows, what the gate judges
PROMISE = Promise(kind="benign_fpr", limit=0.1 if IS_SMALL else 0.01)
VIOLATIONS = 0.01  # of the stream
NUM_JUDGED = {True: 100, False: 1500} if IS_SMALL else {True: 1500, False: 4500}  # by whether a text is a violation
STREAM = 300 if IS_SMALL else 2000
UNJUDGED = Gate(min_average_precision=0, min_seen_kept=0, min_unseen_kept=0, max_twin_ratio=1e9, max_bundle_mb=1e4)


@dataclass(frozen=True)
class Judged:
    """Texts of both kinds, and what both releases say about them; a text that ends early is never flagged."""

    is_violation: NDArray[np.bool_]
    is_flagged: NDArray[np.bool_]  # by the whole network, at the threshold that was proved for the cascade
    first: Floats  # log-odds of the cascade's first member
    ended_early: NDArray[np.bool_]

    def kept(self, ended_early: NDArray[np.bool_]) -> float:
        """Of the violations that the whole network finds, the share that it is still asked about."""
        return float((~ended_early)[self.is_violation & self.is_flagged].mean())

    def asked(self, ended_early: NDArray[np.bool_]) -> float:
        """Of the stream, the share that the whole network is asked about."""
        violations, benign = ((~ended_early)[self.is_violation == kind].mean() for kind in (True, False))
        return float(VIOLATIONS * violations + (1 - VIOLATIONS) * benign)

    def frontier(self) -> list[dict[str, float]]:
        """What is kept when so many of the benign texts are asked about."""
        benign, points = self.first[~self.is_violation], []
        for asked in (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2):
            ended_early = self.first < np.quantile(benign, 1 - asked)
            points.append({"asked": self.asked(ended_early), "kept": self.kept(ended_early)})
        return points


def releases() -> tuple[Path, Path]:
    """Run folders of the network behind a cascade and of the same weights alone; kept, as encoding takes a minute."""
    table = training_set()
    spec = DetectorSpec(
        name="content",
        description="content_mix, a subset",
        owners=["team:bench"],
        policy="content",
        events="requests",
        feature_service="content_v1",
        text="text",
        labels=[LABEL],
        promises={LABEL: PROMISE},
        gate=UNJUDGED,
        cascade=Cascade(),
        fit=AVERAGE.model_copy(update={"global_batch_size": 256}),
    )
    kept = HOME / "bench" / "encoder" / digest(spec.model_dump_json(), table)
    behind, alone = kept / "cascade", kept / "alone"
    if not (alone / "verdict.json").exists():
        shutil.rmtree(kept, ignore_errors=True)
        _write(behind, spec, table)
        fit(behind, cache=HOME / "pretrained")
        shutil.copytree(behind, alone)
        without = spec.model_copy(update={"cascade": None})
        (alone / "detector.json").write_text(without.model_dump_json(), encoding="utf-8")
        (alone / "bundle" / "spec.json").write_text(without.model_dump_json(indent=1), encoding="utf-8")
        (alone / "bundle" / cascade.FIRST_GRAPH).unlink()
        for run_dir in (behind, alone):
            evaluate_run(run_dir)
    return behind, alone


def _write(run_dir: Path, spec: DetectorSpec, table: pa.Table) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "detector.json").write_text(spec.model_dump_json(), encoding="utf-8")
    (run_dir / "training_set.json").write_text(json.dumps({"num_rows": len(table), "cutoff_us": 1}))
    pq.write_table(table, run_dir / "training_set.parquet")


def training_set() -> pa.Table:
    """Rows of a run; those that the gate judges come from `validation` too, so that `test` is left to the stream."""
    table = known(read())
    table = sample(table.filter(pc.not_equal(table["split"], "test")), SMALL if IS_SMALL else SIZES)
    splits = table["split"].to_numpy(zero_copy_only=False).astype(object)
    calibration = np.flatnonzero(splits == "calibration")
    splits[np.random.default_rng(0).permutation(calibration)[:NUM_GATED]] = "test"
    return table.set_column(table.column_names.index("split"), "split", pa.array(splits))


def known(table: pa.Table) -> pa.Table:
    """The rows of which it is known whether they break a rule."""
    return table.filter(table[LABEL].is_valid())


def pools() -> dict[bool, list[str]]:
    """Texts that nothing was chosen on, by whether they are violations, in a seeded order."""
    test = known(read()).filter(pc.field("split") == "test")
    more = pq.read_table(DATA / "benign_alpaca_nc" / "data.parquet", filters=[("split", "=", "test")])
    found = {kind: test.filter(pc.equal(test[LABEL], int(kind)))["text"].to_pylist() for kind in (True, False)}
    found[False] += more["text"].to_pylist()
    rng = np.random.default_rng(0)
    return {kind: [texts[at] for at in rng.permutation(len(texts))] for kind, texts in found.items()}


def stream() -> list[str]:
    """As traffic comes: one violation in a hundred."""
    pool, num = pools(), round(STREAM * VIOLATIONS)
    texts = pool[True][-num:] + pool[False][num - STREAM :]
    return [texts[at] for at in np.random.default_rng(1).permutation(len(texts))]


def judge(behind: Path) -> Judged:
    """Ask the first member and the whole network about violations and benign texts.

    Both flag from the same threshold, and what ends early lies below it: the cascade flags no benign text more.
    """
    bundle, pool = behind / "bundle", pools()
    rows = [{"text": text} for kind, num in NUM_JUDGED.items() for text in pool[kind][:num]]
    answering = cascade.load(bundle)
    threshold = json.loads((bundle / "thresholds.json").read_bytes())[LABEL]["threshold"]
    if isinstance(answering, cascade.Cascade):
        first, whole = answering.first, answering.whole
        scores, ended_early = answering.judge(rows)
        assert not (scores[ended_early, 0] >= threshold).any(), "what ends early is flagged"
    else:
        first, whole = cascade.first_of(answering, bundle, scaling=np.array([[1.0, 0.0]])), answering
        ended_early = np.zeros(len(rows), bool)
    return Judged(
        is_violation=np.repeat(list(NUM_JUDGED), list(NUM_JUDGED.values())),
        is_flagged=whole.score(rows)[:, 0] >= (np.inf if threshold is None else threshold),
        first=first.log_odds(rows)[:, 0],
        ended_early=ended_early,
    )
