"""The training set of a detector: labels known by now, joined to features as they were."""

import warnings

import dagster as dg

from feature_repo.windows import SERVICES
from orchestration.settings import Settings
from orchestration.stages import shelf
from training.detector import DetectorSpec


def training_set(spec: DetectorSpec) -> dg.AssetsDefinition:
    """Build it from the lake as it is, into a folder of its own."""
    views = SERVICES[spec.feature_service].views

    @dg.asset(
        key=[spec.name, "training_set"],
        deps=[["lake", spec.events], ["lake", "labels"], *(["features", view] for view in views)],
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
        shelf.publish(folder)
        return dg.MaterializeResult(metadata={"rows": manifest["num_rows"], "path": dg.MetadataValue.path(str(folder))})

    return asset


def training_set_is_valid(spec: DetectorSpec) -> dg.AssetChecksDefinition:
    """Every split has rows, ids are unique, and the labels have positives to learn from and to be judged on."""

    @dg.asset_check(asset=[spec.name, "training_set"], name="is_valid", blocking=True)
    def check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        from orchestration.stages.training_set_counts import counts

        found = counts(shelf.latest(settings.training_sets / spec.name) / "data.parquet", spec.labels)
        return dg.AssetCheckResult(passed=not found.problems, metadata=found.metadata(), description=found.reason)

    return check


def training_set_has_no_leaks(spec: DetectorSpec) -> dg.AssetChecksDefinition:
    """No column knows the future, a verdict before its time, what enforcement did, or the answer alone."""

    @dg.asset_check(asset=[spec.name, "training_set"], name="has_no_leaks", blocking=True)
    def check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        from feature_repo.leaks import find

        leaks = find(settings.lake, shelf.latest(settings.training_sets / spec.name))
        lines = ["| column | leak | why |", "|---|---|---|", *(f"| {x.column} | {x.kind} | {x.why} |" for x in leaks)]
        return dg.AssetCheckResult(
            passed=not leaks,
            metadata={"num_leaks": len(leaks), "leaks": dg.MetadataValue.md("\n".join(lines))},
            description="; ".join(map(str, leaks[:5])) or None,
        )

    return check
