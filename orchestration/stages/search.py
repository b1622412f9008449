"""A search for better settings of a detector's fit; what it finds is for people, who change the detector's YAML."""

import base64
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages import shelf
from training.detector import DetectorSpec

NUM_SHOWN = 10
_SAID = ("description", "owners", "policy", "retrain")
_JUDGED = ("promises", "reviews_per_day", "slices", "unseen_sources", "gate", "cascade")  # after a fit, not by a trial


def search(spec: DetectorSpec) -> dg.AssetsDefinition:
    """Run `python -m training.search` on the newest training set; a search that was killed goes on.

    Nothing starts it by itself.
    """

    @dg.asset(
        key=[spec.name, "search"],
        deps=[[spec.name, "training_set"]],
        group_name=spec.name,
        owners=spec.owners,
        kinds={"optuna", "pytorch"},
        pool=f"train_{spec.name}",
        retry_policy=dg.RetryPolicy(max_retries=1),
        description="Variants of the fit, trained side by side and stopped where they fall behind; judged on "
        "validation alone. The best one is for a person to put into the detector's YAML.",
    )
    def asset(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult:
        folder = prepare(spec, settings)
        command = [sys.executable, "-m", "training.search", str(folder)]
        pipes.run(context=context, command=command, env=dict(os.environ)).get_materialize_result()
        return dg.MaterializeResult(metadata=_described(folder))

    return asset


def prepare(spec: DetectorSpec, settings: Settings) -> Path:
    """The folder of a search: the same for the same inputs, fit, space and training set, whatever else is changed."""
    source = shelf.latest(settings.training_sets / spec.name)
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    ignored: dict[str, Any] = {**dict.fromkeys((*_SAID, *_JUDGED), True), "search": {"num_trials", "num_parallel"}}
    what = [manifest["sha256"], spec.model_dump_json(exclude=ignored)]
    folder = shelf.new(settings.searches / spec.name, hashlib.sha256("\n".join(what).encode()).hexdigest()[:16])
    (folder / "detector.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    copied = folder / "training_set.parquet"
    if not copied.exists():
        shutil.copyfile(source / "data.parquet", folder / "partial.parquet")
        (folder / "partial.parquet").replace(copied)
    return folder


def _described(folder: Path) -> dict[str, Any]:
    """The best variant, the ten that validate best, and the plots."""
    result = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    ranked = sorted(result["trials"], key=lambda trial: trial["value"], reverse=True)[:NUM_SHOWN]
    settings = list(result["best"]["params"])
    lines = [f"| trial | {result['metric']} | state | {' | '.join(settings)} |", "|---" * (3 + len(settings)) + "|"]
    for trial in ranked:
        tried = " | ".join(_shown(trial["params"][name]) for name in settings)
        lines.append(f"| {trial['number']} | {trial['value']:.4f} | {trial['state']} | {tried} |")
    plots = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(folder.glob("*.png"))}
    return {
        "best": result["best"]["value"],
        "as_stated": result["stated"],
        "fit": dg.MetadataValue.json(result["best"]["params"]),
        "trials": dg.MetadataValue.md("\n".join(lines)),
        "path": dg.MetadataValue.path(str(folder)),
        **{name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{png})") for name, png in plots.items()},
    }


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
