"""How much of what a detector finds it still finds under attack, and what the same attack does to benign texts."""

import hashlib
import json
import statistics
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tests.bench.harness import DATA, HOME, IS_SMALL, cost, report
from training import calibration, predictions, robustness
from training.card import estimate_text, per_10k_text
from training.detector import DetectorSpec
from training.evaluate import choose_thresholds, read_inputs
from training.evaluation import AttackEvaluation
from training.fit import fit
from training.fit_config import FitConfig
from training.policy import Promise
from training.scorer import Scorer
from training.text import normalise

LIMITS = {"worst_seen_kept": ">= 0.85", "worst_unseen_kept": ">= 0.70", "worst_twin_ratio": "<= 1.5"}
NUM_TEXTS = 300 if IS_SMALL else 3000

LABELS = [
    *("hate", "harassment", "self_harm", "sexual", "violence", "jailbreak_injection", "fraud_spam", "malware_cyber"),
    *("illicit_other", "toxic", "any_violation"),
]
NUM_TRAINED = 4_000 if IS_SMALL else None  # rows of the training split; what is measured on is never thinned
NUM_OTHERS = 6_000 if IS_SMALL else None


def spec() -> DetectorSpec:
    """The n-gram detector of content_mix, with the disguises of the gym among its training texts."""
    return DetectorSpec(
        name="content",
        description="content_mix: partly known labels of eleven policies over thirty sources",
        owners=["team:trust-and-safety"],
        policy="content",
        promises={"any_violation": Promise(limit=0.02)},
        events="requests",
        labels=LABELS,
        feature_service="content_v1",
        text="text",
        fit=FitConfig(
            network="ngram",
            max_epochs=3 if IS_SMALL else 8,
            global_batch_size=256 if IS_SMALL else 512,
            disguised_share=0.6,
        ),
    )


def training_set() -> pa.Table:
    """content_mix as a training set: its published splits, half of the validation rows calibrate."""
    rows = pq.read_table(DATA / "content_mix" / "data.parquet")
    is_train = pc.equal(rows["split"], "train").to_numpy()
    rng = np.random.default_rng(0)
    parts = (
        rng.permutation(np.flatnonzero(is_train))[:NUM_TRAINED],
        rng.permutation(np.flatnonzero(~is_train))[:NUM_OTHERS],
    )
    rows = rows.take(np.sort(np.concatenate(parts)))
    ids = rows["id"].to_pylist()
    is_even = np.array([int(hashlib.md5(one.encode()).hexdigest(), 16) % 2 == 0 for one in ids])
    split = pc.if_else(pc.and_(pc.equal(rows["split"], "validation"), is_even), "calibration", rows["split"])
    facts = {
        "event_id": ids,
        "event_us": np.arange(len(rows)),
        "sampling_probability": np.ones(len(rows)),
        "split": split,
        "source": rows["source"],
        "kind": rows["kind"],
        "text": rows["text"],
    }
    return pa.table({**facts, **{label: rows[label] for label in LABELS}})


def trained(folder: Path) -> Path:
    """The run folder of the detector; training is done once for the same spec and rows."""
    detector, rows = spec(), training_set()
    facts = [detector.fit.model_dump(), detector.labels, len(rows)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    run_dir = folder / digest
    if not (run_dir / "bundle" / "dense.onnx").exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "detector.json").write_text(detector.model_dump_json(), encoding="utf-8")
        pq.write_table(rows, run_dir / "training_set.parquet")
        fit(run_dir)
    return run_dir


def measured(run_dir: Path) -> list[AttackEvaluation]:
    """Every technique on the test split, at thresholds proved on the calibration split."""
    detector = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    stored = predictions.read(run_dir, detector)
    platt = calibration.fit_all(stored.of("validation"))
    calibration.write(run_dir / "bundle" / "calibration.json", platt)
    scores = calibration.probabilities(stored, platt)
    chosen = choose_thresholds(detector, stored, scores)
    test, path = stored.of("test"), run_dir / robustness.STORED
    scorer, inputs = Scorer.load(run_dir / "bundle"), read_inputs(run_dir, test.event_ids)
    robustness.attack(path, detector, test, inputs=inputs, scorer=scorer, num_texts=NUM_TEXTS)
    return robustness.measure_attacks(path, detector, test, scores=scores[stored.splits == "test"], thresholds=chosen)


def normaliser_us(texts: list[str]) -> float:
    """Microseconds of one text, the median of five rounds."""
    rounds = [cost(lambda: [normalise(text) for text in texts]).cpu_s for _ in range(5)]
    return 1e6 * statistics.median(rounds) / len(texts)


def figures_of(attacks: list[AttackEvaluation]) -> dict[str, object]:
    """The judged figures; where no clean twin is flagged there is no ratio, and the figure says so."""
    kept = {one.technique: one.recall_kept.value for one in attacks if one.recall_kept}
    worst = {
        seen: min((one.technique for one in attacks if one.is_seen == seen), key=kept.__getitem__)
        for seen in (True, False)
    }
    ratios = {one.technique: one.twin_ratio for one in attacks if one.twin_ratio is not None}
    twin = max(ratios, key=ratios.__getitem__, default=None)
    return {
        "worst_seen_kept": kept[worst[True]],
        "worst_unseen_kept": kept[worst[False]],
        "worst_twin_ratio": ratios[twin] if twin else None,
        "worst_seen": worst[True],
        "worst_unseen": worst[False],
        "worst_twin": twin or "why: no clean twin is flagged",
        "num_seen": sum(one.is_seen for one in attacks),
        "num_unseen": sum(not one.is_seen for one in attacks),
    }


def main() -> None:
    run_dir = trained(HOME / "bench" / "attacks")
    attacks = measured(run_dir)
    table = Table("technique", "", "recall clean", "attacked", "kept", "twins flagged of 10,000, clean", "attacked")
    for one in sorted(attacks, key=lambda one: (not one.is_seen, one.technique)):
        kind = "seen" if one.is_seen else "held out"
        shares = [estimate_text(found) for found in (one.recall_clean, one.recall, one.recall_kept)]
        table.add_row(one.technique, kind, *shares, *map(per_10k_text, (one.twin_fpr_clean, one.twin_fpr)))
    Console(width=160).print(table)
    rows = pq.read_table(run_dir / "training_set.parquet", columns=["text", "split"])
    num_trained = pc.sum(pc.equal(rows["split"], "train")).as_py()
    figures = {**figures_of(attacks), "normalise_us": normaliser_us(rows["text"].to_pylist()[:4000])}
    report("attacks", figures | {"num_trained": num_trained}, limits=LIMITS, raw=[one.model_dump() for one in attacks])


if __name__ == "__main__":
    main()
