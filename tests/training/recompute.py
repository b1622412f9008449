"""Every number of an evaluation card once more, by sklearn and loops, from the stored predictions alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import beta, norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from training import predictions
from training.attacks.registry import TECHNIQUES
from training.card import estimate_text, number_text, per_10k_text, percent_text
from training.detector import DetectorSpec
from training.evaluation import Evaluation
from training.metrics import Estimate, draw_replicates
from training.unseen_sources import fold_of


def stored_evaluation(run_dir: Path) -> Evaluation:
    return Evaluation.model_validate_json((run_dir / "evaluation.json").read_bytes())


def recomputed_texts(run_dir: Path) -> list[str]:
    """All that may stand on the card, as it is written there."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    table = scored(run_dir, spec)
    parts = [_promises(spec, run_dir, table), _metrics(spec, run_dir, table), _gate(spec, run_dir)]
    parts += [_counts(run_dir, spec), _burden(spec, run_dir, table), _confusion(spec, run_dir, table)]
    parts += [_shortcuts(spec, run_dir, table)]
    if spec.text is not None:
        parts += [_attacks(spec, run_dir, table), _suites(spec, run_dir), _unseen_sources(spec, run_dir, table)]
    return [text for part in parts for text in part]


def scored(run_dir: Path, spec: DetectorSpec) -> pd.DataFrame:
    """predictions.parquet with probabilities by calibration.json."""
    table = pq.read_table(run_dir / "predictions.parquet").to_pandas()
    scaling = json.loads((run_dir / "bundle" / "calibration.json").read_bytes())
    for label in spec.labels:
        a, b = scaling[label]
        table[f"p_{label}"] = (1 / (1 + np.exp(-(a * table[f"logit_{label}"].astype("float64") + b)))).astype("float32")
    known = pq.read_table(run_dir / "training_set.parquet").to_pandas().set_index("event_id")
    for name in [name for name in ("source", "kind") if name in known and name not in table]:
        table[name] = known[name][table.event_id].to_numpy()
    if spec.text is not None:
        sizes = known[spec.text][table.event_id].str.len().to_numpy()
        names = ("under 80 characters", "80 to 400 characters", "over 400 characters")
        table["length"] = [names[int(size >= 80) + int(size >= 400)] for size in sizes]
        table["script"] = "latin"
    return table


class Bootstrap:
    """The test rows with their cut-offs and draws."""

    def __init__(self, spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> None:
        self.test = table[table.split == "test"].reset_index(drop=True)
        stored = predictions.read(run_dir, spec).of("test")
        self.draws = draw_replicates(int(stored.entities.max()) + 1)[:, stored.entities]
        self.weights = 1 / self.test.sampling_probability.to_numpy()
        chosen = json.loads((run_dir / "bundle" / "thresholds.json").read_bytes())
        self.cuts = {label: one["threshold"] for label, one in chosen.items() if one["threshold"] is not None}
        self.labels = spec.labels
        self.verdicts = self.test[spec.labels].fillna(-1).to_numpy()

    def flags(self, probabilities: pd.DataFrame, prefix: str = "") -> np.ndarray:
        """Which label flags which row, unknown cut-offs never."""
        cuts = [self.cuts.get(label, np.inf) for label in self.labels]
        return probabilities[[prefix + label for label in self.labels]].to_numpy() >= cuts

    def share(self, hits: np.ndarray, rows: np.ndarray, at: np.ndarray | slice = slice(None)) -> np.ndarray:
        """A share of some rows on every replicate."""
        weights = self.weights[at][rows]
        return np.array([np.average(hits[rows], weights=draw * weights) for draw in self.draws[:, at][:, rows]])


def _rate(values: np.ndarray, weights: np.ndarray) -> Estimate:
    value, low, high = _interval(values)
    count = _kish(weights)
    hits = value * count
    exact_low = beta.ppf(0.025, hits, count - hits + 1) if hits > 0 else 0.0
    exact_high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return Estimate(value=value, low=min(low, exact_low), high=max(high, exact_high))


def _burden(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> Iterator[str]:
    rows = Bootstrap(spec, run_dir, table)
    has_cut = np.array([label in rows.cuts for label in spec.labels])
    is_false = (rows.verdicts == 0) & has_cut
    benign = (rows.verdicts != 1).all(axis=1) & is_false.any(axis=1)
    hits = (rows.flags(rows.test, "p_") & is_false).any(axis=1)
    found = _rate(rows.share(hits, benign), rows.weights[benign])
    assert stored_evaluation(run_dir).benign_burden.value == pytest.approx(found.value)  # type: ignore[union-attr]
    yield per_10k_text(found)
    for label in rows.cuts:
        at = stored_evaluation(run_dir).labels[label].at_threshold  # recomputed in _metrics
        assert at is not None
        yield per_10k_text(at.benign_fpr)
        yield percent_text(at.recall)


def _confusion(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> Iterator[str]:
    rows = Bootstrap(spec, run_dir, table)
    flags = rows.flags(rows.test, "p_")
    for at in range(len(spec.labels)):
        true = rows.verdicts[:, at] == 1
        yield str(int(true.sum()))
        for hits in (*flags.T, ~flags.any(axis=1)):
            if true.any():
                yield percent_text(float(np.average(hits[true], weights=rows.weights[true])))


def _shortcuts(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> Iterator[str]:
    rows, evaluation = Bootstrap(spec, run_dir, table), stored_evaluation(run_dir)
    training = pq.read_table(run_dir / "training_set.parquet").to_pandas()
    training = training[training.split == "train"]
    for one in evaluation.shortcuts:
        per_label = []
        for label in evaluation.macro_labels:
            known = training[training[label].notna()]
            weights = 1 / known.sampling_probability
            overall = np.average(known[label], weights=weights)
            groups = known.assign(w=weights, hit=weights * known[label]).groupby(one.column)[["w", "hit"]].sum()
            shares = ((groups.hit + 5 * overall) / (groups.w + 5)).to_dict()
            known_test = rows.test[label].notna().to_numpy()
            scores = rows.test[one.column].map(shares).fillna(overall).to_numpy()[known_test].astype("float32")
            y = rows.test[label].to_numpy()[known_test].astype(bool)
            weighted = rows.draws[:, known_test] * rows.weights[known_test]
            per_label.append([average_precision_score(y, scores, sample_weight=w) for w in weighted])
        value, low, high = _interval(np.mean(per_label, axis=0))
        yield estimate_text(Estimate(value=value, low=low, high=high))
        yield from (str(rows.test[one.column].nunique()), *_within(one.column, rows, evaluation))


def _within(column: str, rows: Bootstrap, evaluation: Evaluation) -> Iterator[str]:
    found = []
    for label in evaluation.macro_labels:
        for value in sorted(rows.test[column].unique()):
            part = ((rows.test[column] == value) & rows.test[label].notna()).to_numpy()
            y = rows.test[label].to_numpy()[part].astype(bool)
            if min(y.sum(), (~y).sum()) >= 10:
                scores, weights = rows.test[f"p_{label}"].to_numpy()[part], rows.weights[part]
                found.append([roc_auc_score(y, scores, sample_weight=draw * weights) for draw in rows.draws[:, part]])
    yield str(len(found))
    if found:
        value, low, high = _interval(np.mean(found, axis=0))
        yield estimate_text(Estimate(value=value, low=low, high=high))


def _attacks(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> Iterator[str]:
    rows = Bootstrap(spec, run_dir, table)
    clean = rows.flags(rows.test, "p_")
    place = {event_id: i for i, event_id in enumerate(rows.test.event_id)}
    evaluated = {one.technique: one for one in stored_evaluation(run_dir).attacks}
    excesses = {}
    for name, part in pq.read_table(run_dir / "attacked.parquet").to_pandas().groupby("technique"):
        at = np.array([place[event_id] for event_id in part.event_id])
        counts = np.array([label not in TECHNIQUES[name].violates for label in spec.labels])
        is_true, is_false = (rows.verdicts[at] == 1) & counts, (rows.verdicts[at] == 0) & counts
        harmful = is_true.any(axis=1)
        twins = ~(rows.verdicts[at] == 1).any(axis=1) & is_false.any(axis=1)
        recalls, rates = [], []
        for flags in (clean[at], rows.flags(part)):
            recalls.append(rows.share((flags & is_true).any(axis=1), harmful, at))
            rates.append(rows.share((flags & is_false).any(axis=1), twins, at))
        kept, excess = _interval(recalls[1] / recalls[0]), _interval(rates[1] - spec.gate.max_twin_ratio * rates[0])
        one = evaluated[name]
        assert (one.recall_kept.value, one.recall_kept.low, one.recall_kept.high) == pytest.approx(kept)  # type: ignore[union-attr]
        assert (one.twin_excess.value, one.twin_excess.low, one.twin_excess.high) == pytest.approx(excess)  # type: ignore[union-attr]
        excesses[name] = Estimate(value=excess[0], low=excess[1], high=excess[2])
        kept_estimate = Estimate(value=kept[0], low=kept[1], high=kept[2])
        yield from (number_text(recalls[0][0]), number_text(recalls[1][0]), percent_text(kept_estimate))
        yield estimate_text(kept_estimate)  # in the gate
        yield from (per_10k_text(_rate(rate, rows.weights[at][twins])) for rate in rates)
        yield from (str(int(harmful.sum())), str(int(twins.sum())))
    wider = norm.isf(0.025 / len(excesses)) / norm.isf(0.025)
    yield from (str(limit) for limit in (0.85, 0.7, 1.5, 0.0, len(excesses)))
    yield from (estimate_text(_wider(one, wider)) for one in excesses.values())


def _wider(found: Estimate, factor: float) -> Estimate:
    low, high = found.value - factor * (found.value - found.low), found.value + factor * (found.high - found.value)
    return Estimate(value=found.value, low=low, high=high)


def _suites(spec: DetectorSpec, run_dir: Path) -> Iterator[str]:
    cuts = json.loads((run_dir / "bundle" / "thresholds.json").read_bytes())
    for suite, part in pq.read_table(run_dir / "benign.parquet").to_pandas().groupby("suite"):
        flags = {label: part[label] >= cuts[label]["threshold"] for label in spec.labels if cuts[label]["threshold"]}
        count, size = int(np.any(list(flags.values()), axis=0).sum()), len(part)
        low = beta.ppf(0.025, count, size - count + 1) if count else 0.0
        found = Estimate(value=count / size, low=low, high=float(beta.ppf(0.975, count + 1, size - count)))
        limit = spec.gate.benign_suites[str(suite)]
        yield from (str(count), str(size), percent_text(found), estimate_text(found), percent_text(limit), str(limit))
        yield from (str(int(flag.sum())) for flag in flags.values())


def _unseen_sources(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> Iterator[str]:
    rows = Bootstrap(spec, run_dir, table)
    for source in spec.unseen_sources:
        fold = pq.read_table(fold_of(run_dir, source) / "predictions.parquet").to_pandas().set_index("event_id")
        for label in spec.labels:
            used = ((rows.test.source == source) & (rows.test[label] == 1) | (rows.test[label] == 0)).to_numpy()
            y = rows.test[label].to_numpy()[used].astype(bool)
            yield str(int(y.sum()))
            if y.sum() < spec.gate.min_positives:
                yield str(spec.gate.min_positives)
                continue
            unseen = fold[f"logit_{label}"][rows.test.event_id].to_numpy()
            for scores in (unseen[used], rows.test[f"logit_{label}"].to_numpy()[used]):
                weighted = rows.draws[:, used] * rows.weights[used]
                precision = [average_precision_score(y, scores, sample_weight=w) for w in weighted]
                yield _text(np.array(precision))
                yield _text(np.array([_recall_at_1pct(y, scores, w) for w in weighted]))


def _recall_at_1pct(y: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    fpr, tpr, _ = roc_curve(y, scores, sample_weight=weights, drop_intermediate=False)
    return tpr[fpr <= 0.01].max()


def _text(values: np.ndarray) -> str:
    value, low, high = _interval(values)
    return estimate_text(Estimate(value=value, low=low, high=high))


def _promises(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> list[str]:
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


def _metrics(spec: DetectorSpec, run_dir: Path, table: pd.DataFrame) -> list[str]:
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
    if threshold is not None and (p >= threshold).any():
        effective["precision"] = _kish(weights[p >= threshold])
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
    for name in ("recall", "benign_fpr", "precision"):
        if one.at_threshold is not None and name in part["effective"]:
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


def _gate(spec: DetectorSpec, run_dir: Path) -> list[str]:
    """Differences are recomputed here; the other criteria repeat figures of the tables above."""
    evaluation = stored_evaluation(run_dir)
    limits = (spec.gate.min_average_precision, spec.gate.min_positives, 0.0001, -0.02, 95)
    texts = [str(limit) for limit in limits] + [number_text(evaluation.bundle_difference)]
    cost = json.loads((run_dir / "cost.json").read_bytes())
    texts += map(number_text, (cost["bundle_mb"], cost["event_ms"]))
    texts += map(str, (spec.gate.max_bundle_mb, spec.gate.max_event_ms))
    if evaluation.comparison is None:
        return texts
    champion = stored_evaluation(run_dir.parent / "champion")
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
    left_out = run_dir / "near_duplicates.parquet"
    repeats = pq.read_table(left_out).to_pandas() if left_out.exists() else pd.DataFrame({"split": [], "event_id": []})
    rows = rows[~rows.event_id.isin(repeats.event_id)]
    texts = ["1970-01-01", "80 to 400 characters"]
    for split, part in rows.groupby("split"):
        texts += [
            str(len(part)),
            str(part.account_id.nunique()),
            str(int((repeats.split == split).sum())),
            *(str(int(part[label].sum())) for label in spec.labels),
        ]
    return texts
