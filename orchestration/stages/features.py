"""Feature rows per day, and the online state that requests read."""

import base64
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import dagster as dg

from feature_repo.view import Feature, View
from feature_repo.windows import asked_at
from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.lake import OWNERS

_IS_MISSING = dg.AutomationCondition.missing() & ~dg.AutomationCondition.will_be_requested()
_CHECK_FAILED = dg.AutomationCondition.any_checks_match(dg.AutomationCondition.check_failed(), blocking_only=True)


def as_soon_as_valid(*needed: Sequence[str]) -> "dg.AutomationCondition[dg.AssetKey]":
    """Each day that something new is known about, unless all that is `needed` is missing on it (all inputs, if none).

    A table that nothing arrived in on a day, or that nobody feeds, holds up nothing.
    """
    selection = dg.AssetSelection.assets(*needed) if needed else dg.AssetSelection.all()
    is_bare = dg.AutomationCondition.all_deps_match(_IS_MISSING).allow(selection).with_label("all_needed_missing")
    eager = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return eager.replace("any_deps_missing", is_bare) & ~dg.AutomationCondition.any_deps_match(_CHECK_FAILED)


def feature_view(view: View, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """Compute a view's rows of each day from the events that its windows reach."""
    asked = asked_at(view)
    tables = view.tables | set(asked)
    columns = [dg.TableColumn(f.name, f.dtype, description=_meaning(f)) for f in view.features]

    @dg.asset(
        key=["features", view.name],
        deps=[["lake", table] for table in sorted(tables)],
        partitions_def=partitions,
        backfill_policy=days.ONE_RUN,
        automation_condition=as_soon_as_valid(*(["lake", table] for table in asked)),
        group_name="features",
        kinds={"duckdb", "feast", "parquet"},
        owners=OWNERS,
        tags={"layer": "features", "entity": view.entity},
        freshness_policy=days.DAILY,
        retry_policy=days.TRY_AGAIN,
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
        description=f"{view.meaning.capitalize()}: one row per `{view.entity}` and moment, as known just before it. "
        "A day that is computed again, because something came late, has the later days that reach into it follow.",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from feature_repo.compute import touched_days

        lake, chosen = settings.lake, days.of(context)
        touched = touched_days(lake, chosen[0], chosen[-1], view)
        _compute(settings, view, [*chosen, *touched])
        days.describe(context, chosen, lambda day: days.num_rows(lake.folder("features", view.name, day)))
        for day in touched:
            facts = {**days.num_rows(lake.folder("features", view.name, day)), "follows": str(chosen[-1])}
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=str(day), metadata=facts))
        return dg.MaterializeResult(metadata=_described(settings, view, chosen[-1]))

    return asset


def online_state(views: Iterable[View], partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """Rebuild what requests read from the lake up to the end of a day; what the service pushed later stays."""

    @dg.asset(
        key=["online", "state"],
        deps=[["features", view.name] for view in views],
        partitions_def=partitions,
        backfill_policy=days.ONE_RUN,
        automation_condition=as_soon_as_valid(),
        group_name="features",
        kinds={"feast"},
        owners=OWNERS,
        tags={"layer": "online"},
        pool="online",
        freshness_policy=days.DAILY,
        retry_policy=days.TRY_AGAIN,
        description="The state of every entity, from which the service computes features at the moment of a request.",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from feature_repo.rebuild import rebuild
        from feature_repo.states import open_states

        last = days.of(context)[-1]
        states = open_states(settings.home, redis=settings.redis, deadline_s=30)
        num_entities = rebuild(settings.lake, states, last)
        return dg.MaterializeResult(metadata={"up_to": last.isoformat(), **num_entities})

    return asset


def online_verdicts(partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """Push the verdicts of a day; the next rebuild of the state holds them too."""

    @dg.asset(
        key=["online", "verdicts"],
        deps=[["lake", "labels"]],
        partitions_def=partitions,
        backfill_policy=days.ONE_RUN,
        group_name="features",
        kinds={"feast"},
        owners=OWNERS,
        tags={"layer": "online"},
        pool="online",
        retry_policy=days.TRY_AGAIN,
        description="Verdicts about payments count for requests once they are valid, not from the next rebuild on.",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from feature_repo.states import open_states
        from feature_repo.verdicts import push_verdicts

        chosen = days.of(context)
        states = open_states(settings.home, redis=settings.redis, deadline_s=30)
        num_verdicts = push_verdicts(settings.lake, states, first=chosen[0], last=chosen[-1])
        return dg.MaterializeResult(metadata={"verdicts": num_verdicts})

    return asset


def _compute(settings: Settings, view: View, chosen: Sequence[date]) -> None:
    if not settings.spark:
        from feature_repo.compute import compute_days

        compute_days(settings.lake, chosen[0], chosen[-1], views=[view.name])
        return
    from feature_repo import spark

    with spark.session(settings.spark) as session:
        spark.compute_days(session, settings.lake, chosen[0], chosen[-1], views=[view.name])


def _described(settings: Settings, view: View, day: date) -> dict[str, Any]:
    """The view's part of the page of all features, and how its values lie on a day."""
    from orchestration import feature_page

    detectors = {name: detector.spec for name, detector in read_detectors(settings.defs).items()}
    plot = feature_page.publish(settings.lake, settings.feature_page, view=view, day=day, detectors=detectors)
    image = base64.b64encode(plot.read_bytes()).decode()
    return {
        "features": dg.MetadataValue.md(feature_page.markdown(view, detectors)),
        "distribution": dg.MetadataValue.md(f"{day}\n\n![distribution](data:image/png;base64,{image})"),
        "page": dg.MetadataValue.path(str(settings.feature_page / "index.html")),
    }


def _meaning(feature: Feature) -> str:
    window = f" in the last {feature.window.name}" if feature.window else ""
    return f"{feature.meaning}{window}; null: {feature.null}"
