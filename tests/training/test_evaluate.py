"""The evaluation of a really trained run: every number on its card is recomputed from the stored predictions."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import beta, norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from tests.training.conftest import behaviour_spec, payments, write_run
from training import predictions
from training.card import estimate_text, number_text
from training.detector import DetectorSpec, Gate
from training.evaluate import evaluate_run
from training.evaluation import Evaluation
from training.export import complete
from training.fit import fit
from training.gate import Verdict
from training.metrics import Estimate, draw_replicates
from training.policy import Promise
from training.scorer import Scorer

NUM_ROWS = 6000


def evaluated_spec(**fit_changes: object) -> DetectorSpec:
    changes = {
        "promises": {"fraud": Promise(limit=0.05), "trial_abuse": Promise(kind="precision", limit=0.999)},
        "slices": ["plan"],
        "gate": Gate(min_positives=10),
    }
    return behaviour_spec(max_epochs=3, **fit_changes).model_copy(update=changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write_run(tmp_path_factory.mktemp("runs") / "trained", evaluated_spec(), rows=payments(NUM_ROWS))
    fit(run_dir)
    complete(run_dir / "bundle")
    return run_dir


@pytest.fixture(scope="module")
def run_dir(trained: Path) -> Path:
    """The trained run beside a champion that learned less."""
    champion = write_run(trained.parent / "champion", evaluated_spec(learning_rate=2e-4), rows=payments(NUM_ROWS))
    fit(champion)
    complete(champion / "bundle")
    evaluate_run(champion)
    entry = {"path": str(champion / "bundle"), "digest": "c0ffee" * 10}
    (trained / "champion.json").write_text(json.dumps(entry))
    evaluate_run(trained)
    return trained


def stored_evaluation(run_dir: Path) -> Evaluation:
    return Evaluation.model_validate_json((run_dir / "evaluation.json").read_bytes())


def test_every_file_of_the_run_folder_is_written_and_the_second_time_byte_for_byte_equal(run_dir: Path) -> None:
    written = ["evaluation.json", "verdict.json", "card.md", "card.html", "result.json"]
    written += ["bundle/calibration.json", "bundle/thresholds.json", "bundle/golden.json"]
    written += [f"plots/{name}.png" for name in ("precision_recall", "calibration", "scores", "costs", "champion")]
    before = {name: (run_dir / name).read_bytes() for name in written}

    evaluate_run(run_dir)

    assert {name: (run_dir / name).read_bytes() for name in written} == before


def test_every_number_on_the_card_is_recomputed_from_the_stored_predictions(run_dir: Path) -> None:
    card = (run_dir / "card.md").read_text(encoding="utf-8")
    expected = " ".join(recomputed_texts(run_dir))

    tables = card[card.index("## Promises") : card.index("## Plots")]
    rows = [line for line in tables.splitlines() if line.startswith("|") and not line.startswith(("|---", "| label"))]
    numbers = {number for row in rows for number in re.findall(r"(?<![\w.-])-?\d+\.?\d*(?:e-?\d+)?", row)}
    missing = sorted(number for number in numbers if number not in re.findall(r"-?[\d.]+(?:e-?\d+)?", expected))

    assert len(numbers) > 100
    assert missing == []


def recomputed_texts(run_dir: Path) -> list[str]:
    """Every figure again, by sklearn and loops, from predictions.parquet and calibration.json alone."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    table = pq.read_table(run_dir / "predictions.parquet").to_pandas()
    scaling = json.loads((run_dir / "bundle" / "calibration.json").read_bytes())
    for label in spec.labels:
        a, b = scaling[label]
        table[f"p_{label}"] = (1 / (1 + np.exp(-(a * table[f"logit_{label}"].astype("float64") + b)))).astype("float32")
    return [*_promises(spec, run_dir, table), *_metrics(spec, run_dir, table), *_gate(run_dir), *_counts(run_dir, spec)]


def _promises(spec: DetectorSpec, run_dir: Path, table) -> list[str]:
    rows = table[table.split == "calibration"]
    texts = []
    stored = json.loads((run_dir / "bundle" / "thresholds.json").read_bytes())
    for label in spec.labels:
        known = rows[rows[label].notna()]
        draws = np.random.default_rng(20).random(len(known))  # thinned to a uniform sample
        known = known[draws < known.sampling_probability.min() / known.sampling_probability]
        promise, chosen = spec.promise(label), stored[label]
        texts += [str(promise.limit), str(promise.confidence), "1"]
        if promise.kind == "benign_fpr":
            benign = np.sort(known[f"p_{label}"][known[label] == 0].to_numpy())[::-1]
            bounds = [beta.ppf(0.95, k + 1, len(benign) - k) for k in range(len(benign) // 4)]
            allowed = max(k for k, bound in enumerate(bounds) if bound <= promise.limit)
            threshold = np.nextafter(benign[allowed], np.float32(2))
            assert chosen["threshold"] == threshold
            texts += [number_text(float(threshold)), number_text(bounds[allowed]), str(len(benign))]
            texts.append(number_text(float((benign >= threshold).mean())))
        else:
            assert chosen["threshold"] is None  # 0.999 takes 2,995 flagged rows
            texts += [chosen["reason"], str(chosen["num_more_labels"])]
            texts += [number_text(chosen["bound"]), number_text(chosen["observed"]), str(chosen["num_rows"])]
    return texts


def _metrics(spec: DetectorSpec, run_dir: Path, table) -> list[str]:
    evaluation = stored_evaluation(run_dir)
    stored = predictions.read(run_dir, spec).of("test")
    test = table[table.split == "test"].reset_index(drop=True)
    draws = draw_replicates(int(stored.entities.max()) + 1)[:, stored.entities] / test.sampling_probability.to_numpy()
    texts, macro = [], []
    everything = np.ones(len(test), dtype=bool)
    for label in spec.labels:
        whole = _recompute(test, label, evaluation, draws=draws, rows=everything)
        _assert_equal(evaluation.labels[label], whole)
        macro.append(whole["average_precision"])
        texts += _texts(whole)
        texts.append(estimate_text(evaluation.labels[label].card_precision))  # recomputed in test_metrics
    found = evaluation.macro_average_precision
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx(_interval(np.mean(macro, axis=0)))
    texts.append(estimate_text(found))
    for one in evaluation.slices:
        rows = (test[one.column].astype(str) == one.value).to_numpy()
        part = _recompute(test, one.label, evaluation, draws=draws, rows=rows)
        _assert_equal(one, part)
        texts += _texts(part)
    return texts


def _recompute(test, label: str, evaluation: Evaluation, *, draws: np.ndarray, rows: np.ndarray) -> dict:
    rows = rows & test[label].notna().to_numpy()
    y, p = test[label][rows].to_numpy().astype(bool), test[f"p_{label}"][rows].to_numpy()
    threshold = evaluation.thresholds[label].threshold
    if not y.any():
        return {"num_rows": len(y), "num_positives": 0}
    names = ["average_precision", "auc", "recall_at_1pct_fpr", "brier", "ece"]
    names += ["recall", "benign_fpr", "precision"] if threshold is not None else []
    values: dict = {name: [] for name in names}
    for weights in draws[:, rows]:
        fpr, tpr, _ = roc_curve(y, p, sample_weight=weights, drop_intermediate=False)
        values["average_precision"].append(average_precision_score(y, p, sample_weight=weights))
        values["auc"].append(roc_auc_score(y, p, sample_weight=weights))
        values["recall_at_1pct_fpr"].append(tpr[fpr <= 0.01].max())
        values["brier"].append(np.average((p - y) ** 2, weights=weights))
        values["ece"].append(_ece(y, p, weights))
        if threshold is not None:
            flagged = p >= threshold
            values["recall"].append(np.average(flagged[y], weights=weights[y]))
            values["benign_fpr"].append(np.average(flagged[~y], weights=weights[~y]))
            values["precision"].append(np.average(y[flagged], weights=weights[flagged]))
    values = {name: np.array(v) for name, v in values.items()}
    weights = 1 / test.sampling_probability[rows].to_numpy()
    effective = {
        name: _kish(weights[y == is_positive]) for name, is_positive in (("recall", True), ("benign_fpr", False))
    }
    return {"num_rows": len(y), "num_positives": int(y.sum()), "effective": effective, **values}


def _kish(weights: np.ndarray) -> float:
    return weights.sum() ** 2 / (weights**2).sum()


def _ece(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> float:
    bins = np.minimum((p * 15).astype(int), 14)
    return sum(abs((weights * (p - y))[bins == b].sum()) for b in range(15)) / weights.sum()


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(np.quantile(values[1:], 0.025)), float(np.quantile(values[1:], 0.975))


def _assert_equal(one, part: dict) -> None:
    assert (one.num_rows, one.num_positives) == (part["num_rows"], part["num_positives"])
    if not one.num_positives:
        assert (one.average_precision, one.auc, one.recall_at_1pct_fpr) == (None, None, None)
        return
    for name in ("average_precision", "auc", "recall_at_1pct_fpr", "brier"):
        found = getattr(one, name)
        assert (found.value, found.low, found.high) == pytest.approx(_interval(part[name])), name
    assert one.ece.value == pytest.approx(part["ece"][0], abs=1e-6)
    for name in ("recall", "benign_fpr"):
        if one.at_threshold is not None:
            found, (value, low, high) = getattr(one.at_threshold, name), _interval(part[name])
            count = part["effective"][name]
            hits = value * count
            exact_low = beta.ppf(0.025, hits, count - hits + 1) if hits > 0 else 0.0
            exact_high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
            assert found.value == pytest.approx(value)
            assert found.low == pytest.approx(min(low, exact_low))
            assert found.high == pytest.approx(max(high, exact_high))
            part[name] = Estimate(value=found.value, low=found.low, high=found.high)


def _texts(part: dict) -> list[str]:
    texts = [str(part["num_positives"]), str(part["num_rows"])]
    for name, values in part.items():
        if isinstance(values, Estimate):
            texts.append(estimate_text(values))
        elif name == "ece":
            value, low, high = _interval(values)
            basic = Estimate(value=value, low=max(0.0, 2 * value - high), high=max(value, 2 * value - low))
            texts.append(estimate_text(basic))
        elif isinstance(values, np.ndarray):
            value, low, high = _interval(values)
            texts.append(estimate_text(Estimate(value=value, low=low, high=high)))
    return texts


def _gate(run_dir: Path) -> list[str]:
    """Differences are recomputed here; the other criteria repeat figures of the tables above."""
    evaluation = stored_evaluation(run_dir)
    assert evaluation.comparison is not None
    champion = stored_evaluation(run_dir.parent / "champion")
    texts = [str(limit) for limit in (0.5, 10, 0.0001, -0.02, 95)] + [number_text(evaluation.bundle_difference)]
    compared = [one for one in evaluation.comparison.differences if one.metric == "average_precision"]
    texts.append(str(len(compared) - 1))
    wider = norm.isf(0.025 / (len(compared) - 1)) / norm.isf(0.025)
    for one in compared:
        found = one.difference
        low, high = found.value - wider * (found.value - found.low), found.value + wider * (found.high - found.value)
        texts.append(estimate_text(found if one.label == "macro" else Estimate(value=found.value, low=low, high=high)))
    for one in evaluation.comparison.differences:
        if one.label != "macro" and one.column is None and one.metric in ("average_precision", "recall_at_1pct_fpr"):
            ours, theirs = (getattr(side.labels[one.label], one.metric) for side in (evaluation, champion))
            assert one.difference.value == pytest.approx(ours.value - theirs.value)
    return texts


def _counts(run_dir: Path, spec: DetectorSpec) -> list[str]:
    rows = pq.read_table(run_dir / "training_set.parquet").to_pandas()
    texts = ["1970-01-01"]
    for _, part in rows.groupby("split"):
        texts += [
            str(len(part)),
            str(part.account_id.nunique()),
            *(str(int(part[label].sum())) for label in spec.labels),
        ]
    return texts


def test_the_bundle_answers_with_the_calibrated_probabilities_that_were_judged(run_dir: Path) -> None:
    evaluation = stored_evaluation(run_dir)
    golden = json.loads((run_dir / "bundle" / "golden.json").read_bytes())

    answered = Scorer.load(run_dir / "bundle").score(golden["rows"])

    assert evaluation.bundle_difference < 1e-5
    assert np.array_equal(answered, np.array(golden["probabilities"], dtype=np.float32))


def test_a_candidate_that_is_worse_than_the_champion_fails_and_says_where(run_dir: Path, tmp_path: Path) -> None:
    weak = shutil.copytree(run_dir.parent / "champion", tmp_path / "weak")
    entry = {"path": str(run_dir / "bundle"), "digest": "beef" * 16}
    (weak / "champion.json").write_text(json.dumps(entry))

    evaluate_run(weak)

    verdict = Verdict.model_validate_json((weak / "verdict.json").read_bytes())
    assert not verdict.passed
    assert "average precision against the champion" in verdict.reason
    assert "FAILED THE GATE" in (weak / "card.md").read_text()


def test_the_html_card_needs_nothing_beside_itself(run_dir: Path) -> None:
    page = (run_dir / "card.html").read_text(encoding="utf-8")

    assert page.count("data:image/png;base64,") == 5
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert str(run_dir) not in page


def test_the_numbers_for_operators_are_plain(run_dir: Path) -> None:
    result = json.loads((run_dir / "result.json").read_bytes())

    assert result["labels_infeasible"] == ["trial_abuse"]
    assert result["gate"] == "failed"
    assert 0.5 < result["macro_average_precision"] <= 1
