"""Text detectors on `content_mix`, beside tuned TF-IDF: in domain, on sources never trained on, on texts that look bad.

`make bench-content` does everything from nothing. What takes long (vectors, fits, the baseline's predictions) is kept
under .mews by digest, so that a second call, or one that goes on after a kill, only scores stored predictions.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.bench import single_sets
from tests.bench.content_mix import AVERAGE, LABELS, TAUGHT, Tfidf, digest, read, run_folder, sample, tfidf_logits
from tests.bench.harness import HOME, IS_SMALL, interleave, median_ratio, report
from training import calibration, predictions
from training.cascade import first_of
from training.detector import Cascade, DetectorSpec
from training.evaluate import choose_thresholds
from training.fit import fit
from training.fit_config import FitConfig
from training.metrics import Floats, Sample, draw_replicates, replicate
from training.policy import Promise
from training.predictions import Predictions
from training.scorer import Scorer

Figures = dict[str, Any]

LIMITS = {
    "macro_ap_gain_low": ">= 0.02",
    "recall_gain": ">= 0.02",
    "loso_gain": ">= 0.03",
    "xstest_auc": ">= 0.75",
    "xstest_fpr": "<= 0.15",
    "hatecheck_auc": ">= 0.74",
    "ece": "<= 0.03",
    "cpu_rows_vs_tfidf": ">= 2",
    "cpu_macro_ap_gain": ">= 0",
}
FEWEST_POSITIVES = 30
NUM_REPLICATES = 20 if IS_SMALL else 200
# The n-grams alone are what needs no encoder: each member is trained on its own loss.
RELEASED = AVERAGE.model_copy(
    update={
        "benign_suites": TAUGHT,
        "source_power": 0.5,
        "assumed_benign": {label: 0.04 for label in LABELS if label != "any_violation"},
        "max_epochs": 2 if IS_SMALL else 12,
        "patience": None,
        "num_buckets": 1 << 20,
        "hidden_size": 512,
    }
)
# Of benign events, a quarter of which look as if they broke a rule (see `content_mix.read`), so few are flagged.
PROMISE = Promise(kind="benign_fpr", limit=0.005)
FOLD_ROWS = {"train": 15_000, "validation": 4000, "calibration": 2000}
# Of a seventh of the rows batches of 512 make too few steps: chosen on eight other sources left out of training.
FOLD = RELEASED.model_copy(update={"global_batch_size": 128})
FOLD_OTHERS = 4000  # test rows of the other sources, of which the benign ones say what recall at 1 % FPR is
FOLDS = {  # what is left out of training, and the label it is then judged by
    ("tensor_trust_attacks", "tensor_trust_defences"): "jailbreak_injection",
    ("jailbreak_in_the_wild",): "jailbreak_injection",
    ("bipia_indirect_injection", "bipia_contexts"): "jailbreak_injection",
    ("sms_spam",): "fraud_spam",
    ("advbench",): "any_violation",
    ("tweeteval_offensive",): "toxic",
}
NOT_IN_DOMAIN = ("xstest", "hatecheck", "benign_sae_social")  # sources that have no training rows


def spec_of(config: FitConfig) -> DetectorSpec:
    """The detector of this benchmark; with n-grams among its members, these are looked at alone too."""
    return DetectorSpec(
        name="content",
        description="content_mix",
        owners=["team:bench"],
        policy="content",
        events="requests",
        feature_service="content_v1",
        text="text",
        labels=LABELS,
        promises={"any_violation": PROMISE},
        slices=["kind"],
        cascade=Cascade() if config.members else None,
        fit=config,
    )


def lay_out(run_dir: Path, table: pa.Table, config: FitConfig) -> None:
    """Write what a fit reads."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "detector.json").write_text(spec_of(config).model_dump_json(), encoding="utf-8")
    pq.write_table(table, run_dir / "training_set.parquet")


def run_of(table: pa.Table, config: FitConfig) -> Path:
    """The run folder of a table and a configuration, laid out once."""
    run_dir = run_folder(digest(spec_of(config).model_dump_json(), table))
    if not (run_dir / "detector.json").exists():
        lay_out(run_dir, table, config)
    return run_dir


@dataclass(frozen=True)
class Fitted:
    """A trained detector's stored predictions, as probabilities too, and the threshold of `any_violation`."""

    run_dir: Path
    stored: Predictions
    probabilities: Floats
    threshold: float | None

    @classmethod
    def of(cls, table: pa.Table, config: FitConfig = RELEASED) -> "Fitted":
        """Train, or find what was trained before."""
        run_dir, spec = run_of(table, config), spec_of(config)
        if not (run_dir / "bundle" / "golden.json").exists():
            fit(run_dir, cache=HOME / "pretrained")
        stored = predictions.read(run_dir, spec)
        platt = calibration.fit_all(stored.of("validation"))
        calibration.write(run_dir / "bundle" / "calibration.json", platt)
        scores = calibration.probabilities(stored, platt)
        chosen = choose_thresholds(spec, stored, scores)["any_violation"]
        return cls(run_dir, stored, scores, chosen.threshold)

    @property
    def test(self) -> Predictions:
        return self.stored.of("test")

    @property
    def first_logits(self) -> Floats:
        """Of the n-grams alone, on the test split."""
        assert self.test.first_logits is not None
        return self.test.first_logits

    @property
    def test_probabilities(self) -> Floats:
        return self.probabilities[self.stored.splits == "test"]


def rows_of(one: Predictions, label: str, keep: NDArray[np.bool_], scores: Floats) -> Sample:
    """The kept rows whose verdict on a label is known."""
    rows, column = np.flatnonzero(keep & (one.verdicts[:, LABELS.index(label)] >= 0)), LABELS.index(label)
    return Sample(scores[rows, column], one.verdicts[rows, column] == 1, np.ones(len(rows)), rows)


def macro(test: Predictions, scores: Floats, draws: NDArray[np.uint8]) -> dict[str, Floats]:
    """Mean over the labels with enough positives, of each metric on each replicate [R + 1]."""
    everything = np.ones(len(test.verdicts), bool)
    judged = [at for at in range(len(LABELS)) if (test.verdicts[:, at] == 1).sum() >= FEWEST_POSITIVES]
    found = [replicate(rows_of(test, LABELS[at], everything, scores), draws) for at in judged]
    return {
        name: np.nanmean([one[name] for one in found], axis=0) for name in ("average_precision", "recall_at_1pct_fpr")
    }


def draws_of(sources: NDArray[np.object_]) -> NDArray[np.uint8]:
    """How often each row is drawn: its source is drawn, and it among the rows of the source."""
    of_row = np.unique(sources.astype(str), return_inverse=True)[1]
    by_source = draw_replicates(of_row.max() + 1, num_replicates=NUM_REPLICATES)
    return by_source[:, of_row] * draw_replicates(len(sources), num_replicates=NUM_REPLICATES, seed=1)


def one_metric(sample_: Sample, name: str) -> float | None:
    """A metric, or None where the rows hold one verdict alone."""
    if sample_.labels.all() or not sample_.labels.any():
        return None
    return float(replicate(sample_, np.ones((1, sample_.clusters.max() + 1), np.uint8))[name][0])


def in_domain_ece(fitted: Fitted) -> float:
    """The calibration error, mean over labels, on sources that have training rows."""
    test = fitted.test
    keep = ~np.isin(test.slices["source"].astype(str), NOT_IN_DOMAIN)
    found = [one_metric(rows_of(test, label, keep, fitted.test_probabilities), "ece") for label in LABELS]
    return float(np.mean([one for one in found if one is not None]))


def fold_value(test: Predictions, logits: Floats, *, sources: tuple[str, ...], label: str) -> float | None:
    """Average precision within the left-out source; where it has violations alone, recall at 1 % FPR on the others."""
    is_out = np.isin(test.slices["source"].astype(str), sources)
    within = rows_of(test, label, is_out, logits)
    if not within.labels.all():
        return one_metric(within, "average_precision")
    benign = ~is_out & (test.verdicts[:, LABELS.index(label)] == 0)
    return one_metric(rows_of(test, label, is_out | benign, logits), "recall_at_1pct_fpr")


def fold_rows(table: pa.Table, sources: tuple[str, ...]) -> pa.Table:
    """A part of what is not of some sources, and the whole test split of these."""
    is_out = pc.is_in(table["source"], pa.array(sources))
    others = sample(table.filter(pc.invert(is_out)), FOLD_ROWS | {"test": FOLD_OTHERS})
    return pa.concat_tables([others, table.filter(pc.and_(is_out, pc.equal(table["split"], "test")))])


def leave_one_out(table: pa.Table, config: FitConfig) -> dict[str, dict[str, float | None]]:
    """Both detectors on a source that neither was trained on, from the same 15,000 training rows."""
    found = {}
    for sources, label in FOLDS.items():
        rows = fold_rows(table, sources)
        fitted = Fitted.of(rows, config)
        logits = np.zeros_like(fitted.test.logits)
        logits[:, [LABELS.index(label)]] = tfidf_logits(rows, list(fitted.test.event_ids), [label])
        values = {"ours": fitted.test.logits, "tfidf": logits}
        found[" ".join(sources)] = {
            n: fold_value(fitted.test, s, sources=sources, label=label) for n, s in values.items()
        }
    return found


def speed(released: Fitted, table: pa.Table) -> float:
    """Rows per second of the n-grams alone beside TF-IDF, both with one thread and in one process."""
    baseline = Tfidf.fit(sample(table, {"train": 2000 if IS_SMALL else 20_000}), LABELS)
    bundle = released.run_dir / "bundle"
    scorer = first_of(Scorer.load(bundle), bundle, scaling=np.tile([1.0, 0.0], (len(LABELS), 1)))
    texts = sample(table.filter(pc.equal(table["split"], "test")), {"test": 1000 if IS_SMALL else 5000})[
        "text"
    ].to_pylist()
    records = [{"text": text} for text in texts]
    calls: dict[str, Callable[[], object]]
    calls = {"ours": lambda: scorer.score(records), "tfidf": lambda: baseline.logits(texts)}
    costs = interleave(calls, repeats=3)
    return median_ratio([c.cpu_s for c in costs["tfidf"]], [c.cpu_s for c in costs["ours"]])


def frontier(fitted: Fitted) -> list[dict[str, float]]:
    """What each false-positive rate on benign calibration rows costs: XSTest's safe prompts, and violations found."""
    chosen = fitted.stored.of("calibration")
    scores = fitted.probabilities[fitted.stored.splits == "calibration"]
    benign = rows_of(chosen, "any_violation", np.ones(len(scores), bool), scores)
    found, test = [], fitted.test
    is_xstest = test.slices["source"].astype(str) == "xstest"
    xstest = rows_of(test, "any_violation", is_xstest, fitted.test_probabilities)
    others = rows_of(test, "any_violation", ~is_xstest, fitted.test_probabilities)
    for rate in (0.02, 0.01, 0.005, 0.002, 0.001):
        cut = float(np.quantile(benign.scores[~benign.labels], 1 - rate))
        flagged, recalled = xstest.scores > cut, others.scores[others.labels] > cut
        shares = (flagged[~xstest.labels].mean(), flagged[xstest.labels].mean(), recalled.mean())
        found.append(
            {"benign_fpr": rate} | dict(zip(("xstest_fpr", "xstest_recall", "recall"), map(float, shares), strict=True))
        )
    return found


def quality(table: pa.Table, config: FitConfig = RELEASED, fold: FitConfig = FOLD) -> tuple[Fitted, Figures, Figures]:
    """A detector of one configuration beside TF-IDF: the fit, its figures, and what they are made of."""
    released = Fitted.of(table, config)
    test, source = released.test, released.test.slices["source"].astype(str)
    baseline = tfidf_logits(table, list(test.event_ids), LABELS)
    draws = draws_of(test.slices["source"])
    ours, cpu, theirs = (macro(test, scores, draws) for scores in (test.logits, released.first_logits, baseline))
    gain = ours["average_precision"] - theirs["average_precision"]
    folds = leave_one_out(table, fold)
    pairs = [(one["ours"], one["tfidf"]) for one in folds.values() if None not in one.values()]
    xstest = rows_of(test, "any_violation", source == "xstest", released.test_probabilities)
    hatecheck = rows_of(test, "hate", source == "hatecheck", released.test_probabilities)
    figures = {
        "macro_ap_gain_low": float(np.nanquantile(gain[1:], 0.025)),
        "recall_gain": float(ours["recall_at_1pct_fpr"][0] - theirs["recall_at_1pct_fpr"][0]),
        "loso_gain": float(np.mean([a - b for a, b in pairs])) if pairs else None,
        "xstest_auc": one_metric(xstest, "auc"),
        "xstest_fpr": float((xstest.scores[~xstest.labels] >= released.threshold).mean())
        if released.threshold
        else None,
        "hatecheck_auc": one_metric(hatecheck, "auc"),
        "ece": in_domain_ece(released),
        "cpu_macro_ap_gain": float(cpu["average_precision"][0] - theirs["average_precision"][0]),
        "macro_ap": float(ours["average_precision"][0]),
        "cpu_macro_ap": float(cpu["average_precision"][0]),
        "tfidf_macro_ap": float(theirs["average_precision"][0]),
    }
    sets = list(single_sets.rows(test, released.test_probabilities, released.threshold or 1.0))
    return released, figures, {"folds": folds, "gain": gain.tolist(), "single_sets": sets}


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # its tips advertise
    warnings.filterwarnings("ignore", module="lightning")
    table = read()
    released, figures, raw = quality(table)
    figures["cpu_rows_vs_tfidf"] = speed(released, table)
    single_sets.show(raw["single_sets"])
    raw["frontier"] = frontier(released)
    print(orjson.dumps({name: raw[name] for name in ("folds", "frontier")}, option=orjson.OPT_INDENT_2).decode())
    report("content", figures, limits=LIMITS, raw=raw)


if __name__ == "__main__":
    main()
