"""Registers an evaluated run in MLflow; the only module that imports its client.

What stands there is for people to look at: authority is signatures over a release, never a tag or an alias.
"""

import hashlib
import io
import json
import os
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import mlflow
import orjson
import pandas as pd
from filelock import FileLock
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Metric
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from training.detector import DetectorSpec
from training.evaluation import Evaluation
from training.gate import Verdict
from training.policy import Contract
from training.reports import CURVES

ALIAS = "candidate"
_MAX_DESCRIPTION = 5000  # characters that MLflow's tables hold
_LOCK = Path(tempfile.gettempdir()) / f"mews-registry-{os.getuid()}.lock"
_MAX_BATCH = 1000  # metrics of one request
_ARTIFACTS = ("card.md", "card.html", "evaluation.json", "verdict.json", "training_set.json")
_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic", "safetensors")


class RegisteredVersion(Contract):
    """Where a candidate stands in the registry."""

    mlflow_model: str
    mlflow_version: str
    mlflow_run_id: str
    digest: str


def register(run_dir: Path) -> RegisteredVersion:
    """Log the run and register its bundle as a model version; a bundle that has one keeps it, with its newest verdict.

    Adds the version to result.json. Reads MLFLOW_TRACKING_URI.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ValueError("MLFLOW_TRACKING_URI is not set; it says where runs are tracked, such as sqlite:///mlflow.db")
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    digest = digest_of(run_dir / "bundle")
    # MLflow narrates on stderr (what fails raises), and two first users at once would both make its tables.
    with redirect_stderr(io.StringIO()), FileLock(_LOCK):
        version = _log_and_register(run_dir, spec, digest)
    result = json.loads((run_dir / "result.json").read_bytes())
    (run_dir / "result.json").write_bytes(orjson.dumps(result | version.model_dump(), option=orjson.OPT_INDENT_2))
    return version


def digest_of(bundle: Path) -> str:
    """One digest of the names and bytes of a folder, in a fixed order."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(bundle).as_posix()}\n" for f in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _registered(name: str, digest: str) -> RegisteredVersion | None:
    for one in mlflow.MlflowClient().search_model_versions(f"name = '{name}'"):
        if one.tags.get("digest") == digest:
            return RegisteredVersion(
                mlflow_model=name, mlflow_version=str(one.version), mlflow_run_id=one.run_id, digest=digest
            )
    return None


def _log_and_register(run_dir: Path, spec: DetectorSpec, digest: str) -> RegisteredVersion:
    evaluation = Evaluation.model_validate_json((run_dir / "evaluation.json").read_bytes())
    verdict = Verdict.model_validate_json((run_dir / "verdict.json").read_bytes())
    tags = {"detector": spec.name, "verdict": "passed" if verdict.passed else "failed"}
    experiment, version = _experiment(spec.name), _registered(spec.name, digest)
    known_run = version.mlflow_run_id if version else None
    with mlflow.start_run(known_run, experiment_id=experiment, run_name=run_dir.name, tags=tags) as run:
        mlflow.log_metrics(dict(_figures(evaluation)))
        for name in _ARTIFACTS:
            if (run_dir / name).exists():  # a run from a shell may have no manifest
                mlflow.log_artifact(str(run_dir / name))
        mlflow.log_artifacts(str(run_dir / "plots"), "plots")
        if version is None:
            mlflow.log_params({**spec.fit.model_dump(), "feature_service": spec.feature_service})
            _log_curves(run.info.run_id, run_dir / CURVES)
            mlflow.log_input(_data_set(run_dir, spec), context="training")
            version = _log_model(run_dir / "bundle", spec, digest)
    _describe(version, run_dir, tags=tags | {"digest": digest, "reason": verdict.reason[:_MAX_DESCRIPTION]})
    return version


def _experiment(name: str) -> str:
    """The experiment of a detector; beside a SQLite file its artifacts lie in `mlartifacts`, else the server says."""
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    uri = urllib.parse.urlparse(os.environ["MLFLOW_TRACKING_URI"])
    folder = Path(uri.path[1:]).resolve().parent / "mlartifacts" / name if uri.scheme == "sqlite" else None
    return str(mlflow.create_experiment(name, artifact_location=folder.as_uri() if folder else None))


def _figures(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    """The test split's figures by name, as MLflow compares them over runs."""
    if evaluation.macro_average_precision:
        yield "macro_average_precision", evaluation.macro_average_precision.value
    for label, one in evaluation.labels.items():
        named = {name: getattr(one, name) for name in ("average_precision", "auc", "recall_at_1pct_fpr", "ece")}
        named |= (
            {name: getattr(one.at_threshold, name) for name in ("recall", "benign_fpr")} if one.at_threshold else {}
        )
        yield from ((f"{label}/{name}", found.value) for name, found in named.items() if found)


def _log_curves(run_id: str, path: Path) -> None:
    points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    metrics = [Metric(f"fit/{p['name']}", p["value"], timestamp=0, step=p["step"]) for p in points]
    for first in range(0, len(metrics), _MAX_BATCH):
        mlflow.MlflowClient().log_batch(run_id, metrics[first : first + _MAX_BATCH])


def _data_set(run_dir: Path, spec: DetectorSpec) -> MetaDataset:
    """Where the training set lies and the digest of its bytes; MLflow keeps 36 characters of it."""
    path = run_dir / "training_set.parquet"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:36]
    return MetaDataset(LocalArtifactDatasetSource(str(path)), name=f"{spec.name}_training_set", digest=digest)


def _log_model(bundle: Path, spec: DetectorSpec, digest: str) -> RegisteredVersion:
    example = pd.DataFrame(json.loads((bundle / "golden.json").read_bytes())["rows"])
    model = mlflow.pyfunc.log_model(
        name="detector",
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"bundle": str(bundle)},
        signature=_signature(example, spec),
        input_example=example,
        pip_requirements=list(_PACKAGES),
        registered_model_name=spec.name,
    )
    version = str(model.registered_model_version)
    return RegisteredVersion(mlflow_model=spec.name, mlflow_version=version, mlflow_run_id=model.run_id, digest=digest)


def _signature(example: pd.DataFrame, spec: DetectorSpec) -> ModelSignature:
    """Every column may be missing but the text: a missing number or category is an answerable question."""
    kinds = {name: "double" if pd.api.types.is_numeric_dtype(example[name]) else "string" for name in example}
    columns = [ColSpec(kind, str(name), required=name == spec.text) for name, kind in kinds.items()]
    return ModelSignature(Schema(columns), Schema([ColSpec("float", label) for label in spec.labels]))


def _describe(version: RegisteredVersion, run_dir: Path, *, tags: dict[str, str]) -> None:
    """The card as the version's page, tags, and the alias that wakes whoever waits for candidates."""
    client, (name, number) = mlflow.MlflowClient(), (version.mlflow_model, version.mlflow_version)
    card = (run_dir / "card.md").read_text(encoding="utf-8")
    client.update_model_version(name, number, description=shortened(card))
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    client.set_registered_model_alias(name, ALIAS, number)


def shortened(card: str) -> str:
    """The sections of a card that fit a description, and where the rest is."""
    rest = "\n\nPlots, slices and every criterion: `card.html` among the artifacts of the run."
    sections = card.split("\n## ")
    kept = sections[0]
    for section in sections[1:]:
        is_shown = not section.startswith("Plots") and len(kept) + len(section) + len(rest) + 4 <= _MAX_DESCRIPTION
        kept += f"\n## {section}" if is_shown else ""
    return kept[: _MAX_DESCRIPTION - len(rest)].rstrip() + rest
