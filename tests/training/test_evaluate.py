"""The evaluation of a really trained run: every number on its card is recomputed from the stored predictions."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import behaviour_spec, payments, write_run
from tests.training.recompute import stored_evaluation
from tests.training.runs import generated_spec, write_stored_run
from training.detector import DetectorSpec, Gate
from training.evaluate import evaluate_run
from training.export import complete
from training.fit import fit
from training.gate import Verdict
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
    stand_beside(trained, champion)
    evaluate_run(trained)
    return trained


def stand_beside(run_dir: Path, champion: Path) -> None:
    """Let a run be compared with another one."""
    entry = {"path": str(champion / "bundle"), "digest": "c0ffee" * 10}
    (run_dir / "champion.json").write_text(json.dumps(entry))


def copy_as(run_dir: Path, copy: Path, spec: DetectorSpec) -> Path:
    """The same trained run, of a detector that is evaluated otherwise."""
    shutil.copytree(run_dir, copy)
    (copy / "detector.json").write_text(spec.model_dump_json())
    return copy


def test_every_file_of_the_run_folder_is_written_and_the_second_time_byte_for_byte_equal(run_dir: Path) -> None:
    written = ["evaluation.json", "verdict.json", "card.md", "card.html", "result.json"]
    written += ["bundle/calibration.json", "bundle/thresholds.json", "bundle/golden.json"]
    written += [
        f"plots/{name}.png" for name in ("precision_recall", "calibration", "scores", "costs", "champion", "confusion")
    ]
    before = {name: (run_dir / name).read_bytes() for name in written}

    evaluate_run(run_dir)

    assert {name: (run_dir / name).read_bytes() for name in written} == before


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


def test_a_champion_may_flag_by_a_column_that_the_candidate_slices_by_no_more(run_dir: Path, tmp_path: Path) -> None:
    per_plan = {"fraud": Promise(limit=0.2, per="plan")}
    champion = copy_as(run_dir, tmp_path / "champion", evaluated_spec().model_copy(update={"promises": per_plan}))
    (champion / "champion.json").unlink()
    evaluate_run(champion)
    candidate = copy_as(run_dir, tmp_path / "candidate", evaluated_spec().model_copy(update={"slices": []}))
    stand_beside(candidate, champion)

    comparison = evaluate_run(candidate).comparison

    assert comparison is not None
    shown = {one.metric: one.champion for one in comparison.differences if one.label == "fraud" and not one.column}
    of_champion = stored_evaluation(champion).labels["fraud"].at_threshold
    assert of_champion is not None
    assert of_champion.recall is not None
    assert shown["recall"] == of_champion.recall.value
    assert "plan" in {one.column for one in comparison.differences}


def test_a_champion_that_reads_what_the_training_set_lacks_is_not_compared_and_fails_the_gate(
    run_dir: Path, tmp_path: Path
) -> None:
    spec = evaluated_spec().model_copy(update={"numbers": ["amount", "mean_amount_7d"]})
    candidate = write_run(tmp_path / "candidate", spec, rows=payments(2000).drop_columns(["num_payments_1d"]))
    fit(candidate)
    complete(candidate / "bundle")
    stand_beside(candidate, run_dir)

    evaluate_run(candidate)

    verdict = Verdict.model_validate_json((candidate / "verdict.json").read_bytes())
    why = "the training set lacks ['num_payments_1d'], which the champion reads"
    assert not verdict.passed
    assert f"macro: average precision against the champion: {why}" in verdict.reason
    assert f"**Not compared** with champion `c0ffeec0ffee`: {why}" in (candidate / "card.md").read_text()


def test_a_training_set_without_test_rows_is_refused(tmp_path: Path) -> None:
    spec = generated_spec()
    run_dir = write_stored_run(tmp_path / "run", spec, num_rows=400)
    for name in ("predictions.parquet", "training_set.parquet"):
        pq.write_table(pq.read_table(run_dir / name, filters=[("split", "!=", "test")]), run_dir / name)

    with pytest.raises(ValueError, match="the training set of 'payment_fraud' has no row with split test"):
        evaluate_run(run_dir)


def test_the_html_card_needs_nothing_beside_itself(run_dir: Path) -> None:
    page = (run_dir / "card.html").read_text(encoding="utf-8")

    assert page.count("data:image/png;base64,") == 6
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert str(run_dir) not in page


def test_the_numbers_for_operators_are_plain(run_dir: Path) -> None:
    result = json.loads((run_dir / "result.json").read_bytes())

    assert result["labels_infeasible"] == ["trial_abuse"]
    assert result["gate"] == "failed"
    assert 0.5 < result["macro_average_precision"] <= 1
