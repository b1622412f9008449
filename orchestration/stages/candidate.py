"""A candidate: trained, evaluated, judged and registered by one subprocess over a run folder."""

import json
import os
import shutil
import sys
from pathlib import Path

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages import shelf
from training.detector import DetectorSpec

STARTED_BY = "started_by"


def candidate(spec: DetectorSpec) -> dg.AssetsDefinition:
    """Run `python -m training.launch` on the run's own training set, else the newest; a retry goes on where it was."""

    @dg.asset(
        key=[spec.name, "candidate"],
        deps=[[spec.name, "training_set"]],
        group_name=spec.name,
        owners=spec.owners,
        kinds={"pytorch", "mlflow"},
        pool=f"train_{spec.name}",
        retry_policy=dg.RetryPolicy(max_retries=1),
        description="A trained version with its evaluation card and the verdict of its gate, in the model registry.",
    )
    def asset(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult:
        run_dir = prepare(spec, settings, context.run.run_id, started_by=context.run.tags.get("started_by"))
        command = [sys.executable, "-m", "training.launch", str(run_dir)]
        env = {**os.environ, "MLFLOW_TRACKING_URI": settings.tracking_uri}
        result = pipes.run(context=context, command=command, env=env).get_materialize_result()
        shelf.publish(run_dir)
        return result

    return asset


def prepare(spec: DetectorSpec, settings: Settings, run_id: str, *, started_by: str | None) -> Path:
    """Lay out the run folder: the spec, the training set, the champion to be compared with, and who may not sign."""
    from orchestration.approvals import Approvals, who

    run_dir = shelf.new(settings.runs / spec.name, run_id)
    (run_dir / "detector.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    (run_dir / STARTED_BY).write_text(started_by or who(), encoding="utf-8")
    source = shelf.of_run(settings.training_sets / spec.name, run_id)
    for name, target in {"data.parquet": "training_set.parquet", "manifest.json": "training_set.json"}.items():
        if not (run_dir / target).exists():
            partial = run_dir / f"partial.{target}"
            shutil.copyfile(source / name, partial)
            partial.replace(run_dir / target)
    desk = Approvals(settings)
    if settings.people.exists() and (champion := desk.servable(spec.name)):
        path = desk.shelves.release(spec.name, champion.release)
        facts = {"path": str(path), "digest": champion.release}
        (run_dir / "champion.json").write_text(json.dumps(facts), encoding="utf-8")
    return run_dir


def candidate_passes_gate(spec: DetectorSpec) -> dg.AssetChecksDefinition:
    """Show the verdict of the gate; the verdict itself is sealed and checked again by whoever serves."""

    @dg.asset_check(asset=[spec.name, "candidate"], name="passes_gate", blocking=True)
    def check(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        run_dir = shelf.of_run(settings.runs / spec.name, context.run.run_id)
        verdict = json.loads((run_dir / "verdict.json").read_text(encoding="utf-8"))
        card = (run_dir / "card.md").read_text(encoding="utf-8")
        return dg.AssetCheckResult(
            passed=verdict["passed"], description=verdict["reason"], metadata={"card": dg.MetadataValue.md(card)}
        )

    return check
