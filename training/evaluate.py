"""Evaluates a trained run: `evaluate_run(RUN_DIR)` calibrates, chooses thresholds, measures, compares and judges.

Reads what `fit` left in the run folder and completes it; a second call writes the same bytes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from training import (
    benign,
    calibration,
    card,
    cascade,
    cascade_choice,
    cost,
    label_errors,
    near_duplicates,
    plots,
    predictions,
    robustness,
    thresholds,
)
from training.compare import Champion, compare
from training.detector import DetectorSpec
from training.evaluation import Comparison, Evaluation, SplitSummary
from training.flags import burden, confuse
from training.gate import Verdict, judge
from training.golden import write_golden
from training.measure import measure, summarize
from training.metrics import Floats
from training.per_segment import choose_per_segment, review_band
from training.predictions import Predictions, read_trained_on
from training.shortcuts import measure_shortcuts
from training.thresholds import Threshold
from training.unseen_sources import measure_unseen_sources

_NUM_PARITY_ROWS = 500
_DAY_US = 86_400_000_000


def evaluate_run(run_dir: Path, *, data: Path | None = None) -> Evaluation:
    """Evaluate, judge and describe the candidate of a run folder; `data` holds benign suites that are not ours."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    stored = predictions.read(run_dir, _sliced_as_champion(run_dir, spec))
    if not (stored.splits == "test").any():
        raise ValueError(f"the training set of {spec.name!r} has no row with split test")

    platt = calibration.fit_all(stored.of("validation"))
    calibration.write(run_dir / "bundle" / "calibration.json", platt)
    scores = calibration.probabilities(stored, platt)
    if spec.cascade:
        guide = choose_thresholds(spec, stored, scores, on="validation")
        scores = cascade_choice.apply(run_dir, spec, stored, scores, guide=guide)
    chosen = choose_thresholds(spec, stored, scores)
    _write_json(run_dir / "bundle" / "thresholds.json", {name: one.model_dump() for name, one in chosen.items()})
    write_golden(run_dir / "bundle")

    test, test_scores = stored.of("test"), scores[stored.splits == "test"]
    trained_on = read_trained_on(run_dir, spec)
    evaluation = measure(
        spec,
        test,
        test_scores,
        thresholds=chosen,
        splits=_summaries(run_dir, stored, trained_on=trained_on),
        comparison=_compare_with_champion(run_dir, spec, test=test, scores=test_scores, chosen=chosen),
        bundle_difference=_bundle_difference(run_dir, test, scores=test_scores),
    )
    evaluation = evaluation.model_copy(
        update={
            "shortcuts": measure_shortcuts(trained_on, test, test_scores, labels=evaluation.macro_labels),
            "unseen_sources": measure_unseen_sources(run_dir, spec, test),
            "benign_burden": burden(test, test_scores, thresholds=chosen),
            "confusion": confuse(test, test_scores, thresholds=chosen),
            "label_errors": label_errors.write(run_dir / label_errors.STORED, stored, scores),
            "serving_cost": cost.measure(run_dir, read_inputs(run_dir, test.event_ids[: cost.NUM_EVENTS])),
        }
    )
    if spec.text is not None:
        evaluation = evaluation.model_copy(
            update=_texts_under_test(run_dir, spec, test, scores=test_scores, chosen=chosen, data=data)
        )
    verdict = judge(evaluation, spec)
    _write_json(run_dir / "evaluation.json", evaluation.model_dump())
    _write_json(run_dir / "verdict.json", verdict.model_dump())
    plots.draw(run_dir / "plots", evaluation, test=test, scores=test_scores)
    card.write(run_dir, spec, evaluation=evaluation, verdict=verdict)
    _write_json(run_dir / "result.json", numbers_for_operators(evaluation, verdict))
    return evaluation


def choose_thresholds(
    spec: DetectorSpec, stored: Predictions, scores: Floats, *, on: str = "calibration"
) -> dict[str, Threshold]:
    """Prove each label's promise on `calibration`; `validation` only guides where to look."""
    rows, guide_rows = ((stored.of(s), scores[stored.splits == s]) for s in (on, "validation"))
    return {label: _choose(spec, label, rows=rows, guide=guide_rows) for label in spec.labels}


def _choose(
    spec: DetectorSpec, label: str, *, rows: tuple[Predictions, Floats], guide: tuple[Predictions, Floats]
) -> Threshold:
    promise, (known, scores) = spec.promise(label), rows
    sample, guide_sample = known.sample(label, scores), guide[0].sample(label, guide[1])
    if promise.per is None:
        chosen = thresholds.choose(promise, sample, guide=guide_sample)
    else:
        values, guide_values = (one.slices_of(label)[promise.per] for one in (known, guide[0]))
        chosen = choose_per_segment(promise, sample, guide=guide_sample, segments=values, guide_segments=guide_values)
    if (capacity := spec.reviews_per_day.get(label)) and len(sample.scores):
        cut = chosen.cuts(known.slices_of(label))
        cuts = np.broadcast_to(np.inf if cut is None else cut, sample.scores.shape)
        per_day = sample.weights / max(1.0, float(np.ptp(known.event_us)) / _DAY_US)
        chosen = review_band(chosen, sample.scores, cuts, per_day=per_day, capacity=capacity)
    return chosen


def read_inputs(run_dir: Path, event_ids: Any) -> pa.Table:
    """The training set's rows of some events, in their order: what a scorer is given."""
    table = pq.read_table(run_dir / "training_set.parquet", filters=[("event_id", "in", list(event_ids))])
    position = {event_id: i for i, event_id in enumerate(table["event_id"].to_pylist())}
    return table.take(pa.array([position[event_id] for event_id in event_ids], pa.int64()))


def numbers_for_operators(evaluation: Evaluation, verdict: Verdict) -> dict[str, Any]:
    """The figures that Dagster shows beside the candidate."""
    macro = evaluation.macro_average_precision
    provable = [label for label, one in evaluation.thresholds.items() if one.threshold is not None]
    return {
        "gate": "passed" if verdict.passed else "failed",
        "reason": verdict.reason,
        "macro_average_precision": macro.value if macro else None,
        "macro_average_precision_low": macro.low if macro else None,
        "macro_average_precision_high": macro.high if macro else None,
        "num_test_rows": next((s.num_rows for s in evaluation.splits if s.split == "test"), 0),
        "labels_with_proved_threshold": provable,
        "labels_infeasible": [label for label in evaluation.thresholds if label not in provable],
        "champion": evaluation.comparison.champion if evaluation.comparison else None,
    }


def _summaries(run_dir: Path, stored: Predictions, *, trained_on: Predictions) -> list[SplitSummary]:
    rows = {"train": trained_on, **{split: stored.of(split) for split in ("validation", "calibration", "test")}}
    left_out = near_duplicates.count(run_dir)
    return [summarize(split, one, num_near_duplicates=left_out[split]) for split, one in rows.items()]


def _texts_under_test(
    run_dir: Path,
    spec: DetectorSpec,
    test: Predictions,
    *,
    scores: Floats,
    chosen: dict[str, Threshold],
    data: Path | None,
) -> dict[str, Any]:
    """What a detector of texts must also show: the attack gym and its suites of benign texts."""
    scorer = cascade.load(run_dir / "bundle")
    attacked, suites = run_dir / robustness.STORED, run_dir / benign.STORED
    robustness.attack(attacked, spec, test, inputs=read_inputs(run_dir, test.event_ids), scorer=scorer, data=data)
    missing = benign.store(suites, spec, scorer=scorer, data=data)
    return {
        "attacks": robustness.measure_attacks(attacked, spec, test, scores=scores, thresholds=chosen),
        "benign_suites": benign.measure_suites(suites, spec, thresholds=chosen, missing=missing),
    }


def _compare_with_champion(
    run_dir: Path, spec: DetectorSpec, *, test: Predictions, scores: Floats, chosen: dict[str, Threshold]
) -> Comparison | None:
    path = run_dir / "champion.json"
    if not path.exists():
        return None
    entry = json.loads(path.read_bytes())
    scorer, inputs = cascade.load(Path(entry["path"])), read_inputs(run_dir, test.event_ids)
    flags_at = _champion_thresholds(run_dir)
    per = {one.promise.per for label, one in flags_at.items() if one.promise.per and label in spec.labels}
    if missing := sorted((scorer.encoder.columns | per) - set(inputs.column_names)):
        why = f"the training set lacks {missing}, which the champion reads; choose a feature service that has them, too"
        return Comparison(champion=entry["digest"], differences=[], only_candidate=[], only_champion=[], why=why)
    champion = Champion(
        digest=entry["digest"], labels=scorer.spec.labels, scores=scorer.score(inputs), thresholds=flags_at
    )
    return compare(spec, test, scores, thresholds=chosen, champion=champion)


def _sliced_as_champion(run_dir: Path, spec: DetectorSpec) -> DetectorSpec:
    """The detector, sliced also by the columns by whose values its champion flags."""
    per = [one.promise.per for one in _champion_thresholds(run_dir).values() if one.promise.per]
    return spec.model_copy(update={"slices": list(dict.fromkeys([*spec.slices, *per]))})


def _champion_thresholds(run_dir: Path) -> dict[str, Threshold]:
    """Where the champion of a run flags; nothing where there is none."""
    path = run_dir / "champion.json"
    if not path.exists():
        return {}
    stored = json.loads((Path(json.loads(path.read_bytes())["path"]) / "thresholds.json").read_bytes())
    return {name: Threshold.model_validate(one) for name, one in stored.items()}


def _bundle_difference(run_dir: Path, test: Predictions, *, scores: Floats) -> float:
    """How far the bundle's answers lie from the evaluated ones: what is sealed is what was judged."""
    rows = np.unique(np.linspace(0, len(scores) - 1, _NUM_PARITY_ROWS).astype(int))
    answered = cascade.load(run_dir / "bundle").score(read_inputs(run_dir, test.event_ids[rows]))
    return float(np.abs(answered - scores[rows]).max())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
