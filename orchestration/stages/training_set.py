"""The training set of a detector: labels known by now, joined to features as they were."""

import warnings
from pathlib import Path

import dagster as dg

from feature_repo.windows import SERVICES
from orchestration.settings import Settings
from orchestration.stages import shelf
from training.detector import DetectorSpec


def training_set(spec: DetectorSpec) -> dg.AssetsDefinition:
    """Build it from the lake as it is, into a folder of its own; a set that a check refuses is not the newest."""
    views, key = SERVICES[spec.feature_service].views, dg.AssetKey([spec.name, "training_set"])

    @dg.asset(
        key=key,
        deps=[["lake", spec.events], ["lake", "labels"], *(["features", view] for view in views)],
        check_specs=[
            dg.AssetCheckSpec(
                "is_valid",
                asset=key,
                blocking=True,
                description="Every split has rows, ids are unique, and the labels have positives to learn from and to "
                "be judged on.",
            ),
            dg.AssetCheckSpec(
                "has_no_leaks",
                asset=key,
                blocking=True,
                description="No column knows the future, a verdict before its time, what enforcement did, or the "
                "answer alone.",
            ),
        ],
        group_name=spec.name,
        owners=spec.owners,
        kinds={"feast", "duckdb"},
        description=f"Events of `{spec.events}` with their labels and features, as known. {spec.description}",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        with warnings.catch_warnings():  # Feast, as it is imported, has all deprecations shown
            from feature_repo.store import open_store
            from feature_repo.training_set import build

        folder = shelf.new(settings.training_sets / spec.name, context.run.run_id)
        manifest = build(
            settings.lake,
            open_store(settings.home, **settings.feature_stores),
            events=spec.events,
            labels=spec.labels,
            feature_service=spec.feature_service,
            out=folder,
        )
        checks = [_is_valid(folder, spec), _has_no_leaks(folder, settings)]
        if all(check.passed for check in checks):
            shelf.publish(folder)
        return dg.MaterializeResult(
            metadata={"rows": manifest["num_rows"], "path": dg.MetadataValue.path(str(folder))}, check_results=checks
        )

    return asset


def _is_valid(folder: Path, spec: DetectorSpec) -> dg.AssetCheckResult:
    from orchestration.stages.training_set_counts import counts

    found = counts(folder / "data.parquet", spec.labels)
    return dg.AssetCheckResult(
        check_name="is_valid", passed=not found.problems, metadata=found.metadata(), description=found.reason
    )


def _has_no_leaks(folder: Path, settings: Settings) -> dg.AssetCheckResult:
    from feature_repo.leaks import find

    leaks = find(settings.lake, folder)
    lines = ["| column | leak | why |", "|---|---|---|", *(f"| {x.column} | {x.kind} | {x.why} |" for x in leaks)]
    return dg.AssetCheckResult(
        check_name="has_no_leaks",
        passed=not leaks,
        metadata={"num_leaks": len(leaks), "leaks": dg.MetadataValue.md("\n".join(lines))},
        description="; ".join(map(str, leaks[:5])) or None,
    )
