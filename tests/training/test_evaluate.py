"""The evaluation of a really trained run: every number on its card is recomputed from the stored predictions."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import behaviour_spec, payments, write_run
from tests.training.recompute import stored_evaluation
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
    entry = {"path": str(champion / "bundle"), "digest": "c0ffee" * 10}
    (trained / "champion.json").write_text(json.dumps(entry))
    evaluate_run(trained)
    return trained


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
