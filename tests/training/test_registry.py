"""A registered candidate is found, loaded and tried with MLflow alone, and answers as the bundle does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.conftest import text_spec, texts, write_run
from training.evaluate import evaluate_run
from training.export import complete
from training.fit import fit
from training.scorer import Scorer

mlflow = pytest.importorskip("mlflow")
from training.registry import RegisteredVersion, digest_of, register, shortened  # noqa: E402


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write_run(tmp_path_factory.mktemp("registry") / "run-1", text_spec(max_epochs=1), rows=texts())
    fit(run_dir)
    complete(run_dir / "bundle")
    evaluate_run(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def version(run_dir: Path) -> RegisteredVersion:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir.parent}/mlflow.db")
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        return register(run_dir)


@pytest.fixture
def client(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> "mlflow.MlflowClient":
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir.parent}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    return mlflow.MlflowClient()


def test_the_candidate_loads_as_a_pyfunc_and_answers_as_its_bundle(
    run_dir: Path, version: RegisteredVersion, client: "mlflow.MlflowClient"
) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{version.mlflow_model}@candidate")

    answered = model.predict(pd.DataFrame({"text": ["parcel jackpot", "garden poem", ""]}))

    expected = Scorer.load(run_dir / "bundle").score([{"text": t} for t in ("parcel jackpot", "garden poem", "")])
    assert answered.columns.tolist() == ["fraud_spam"]
    assert np.array_equal(answered.to_numpy(), expected)


def test_the_version_tells_its_story(run_dir: Path, version: RegisteredVersion, client: "mlflow.MlflowClient") -> None:
    found = client.get_model_version(version.mlflow_model, version.mlflow_version)

    assert found.description.startswith("# content: passed the gate")
    assert "## Promises" in found.description
    assert found.tags["digest"] == digest_of(run_dir / "bundle")
    assert found.tags["verdict"] == "passed"
    assert found.aliases == ["candidate"]


def test_the_run_holds_curves_figures_data_and_plots(
    run_dir: Path, version: RegisteredVersion, client: "mlflow.MlflowClient"
) -> None:
    run = client.get_run(version.mlflow_run_id)
    evaluation = json.loads((run_dir / "evaluation.json").read_bytes())

    assert run.data.params["network"] == "ngram"
    assert run.data.metrics["macro_average_precision"] == evaluation["macro_average_precision"]["value"]
    assert client.get_metric_history(version.mlflow_run_id, "fit/validation_loss")
    assert run.inputs.dataset_inputs[0].dataset.name == "content_training_set"
    assert {a.path for a in client.list_artifacts(run.info.run_id)} >= {"card.html", "card.md", "plots"}


def test_nothing_that_was_stored_is_a_pickle(run_dir: Path, version: RegisteredVersion) -> None:
    stored = [path.name for path in (run_dir.parent / "mlartifacts").rglob("*") if path.is_file()]

    assert "model.safetensors" in stored
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".pt", ".bin"))]


def test_registering_again_after_a_kill_keeps_the_version(
    run_dir: Path, version: RegisteredVersion, client: "mlflow.MlflowClient"
) -> None:
    again = register(run_dir)

    assert again == version
    assert len(client.search_model_versions("name = 'content'")) == 1
    assert json.loads((run_dir / "result.json").read_bytes())["mlflow_version"] == version.mlflow_version


def test_a_bundle_that_is_judged_again_keeps_its_version_and_shows_the_new_verdict(
    run_dir: Path, version: RegisteredVersion, client: "mlflow.MlflowClient"
) -> None:
    again = run_dir.with_name("run-2")
    shutil.copytree(run_dir, again)
    verdict = json.loads((again / "verdict.json").read_text())
    (again / "verdict.json").write_text(json.dumps(verdict | {"passed": False, "reason": "a suite fell"}))
    (again / "card.md").write_text("# content: failed the gate")

    judged = register(again)

    shown = client.get_model_version(version.mlflow_model, version.mlflow_version)
    assert judged == version
    assert (shown.tags["verdict"], shown.tags["reason"]) == ("failed", "a suite fell")
    assert shown.description.startswith("# content: failed the gate")
    run = client.get_run(version.mlflow_run_id)
    assert run.data.tags["verdict"] == "failed"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/card.md") == "# content: failed the gate"
    register(run_dir)


def test_without_a_tracking_uri_nothing_is_written(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI is not set"):
        register(run_dir)


def test_a_long_card_keeps_whole_sections_and_says_where_the_rest_is() -> None:
    card = "# content: passed\n\n## Promises\n" + "p" * 3000 + "\n## Labels\n" + "l" * 3000 + "\n## Plots\nx"

    description = shortened(card)

    assert "## Promises" in description
    assert "## Labels" not in description
    assert "card.html" in description
    assert len(description) <= 5000
