"""What the service decided comes back: from the decision log into the lake, and its events through the inbox."""

import hashlib
from collections.abc import Iterator

import dagster as dg

from feature_repo.tables import DECISIONS
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.features import as_soon_as_valid
from orchestration.stages.lake import OWNERS
from orchestration.stages.news import until_it_succeeds
from training.detector import DetectorSpec

KEY = dg.AssetKey(["lake", DECISIONS.name])


def decisions(partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """Compact the sealed segments of a day; a day that goes on is compacted again as segments are sealed."""
    columns = [dg.TableColumn(name, c.type, description=c.meaning) for name, c in DECISIONS.columns.items()]

    @dg.asset(
        key=KEY,
        partitions_def=partitions,
        backfill_policy=days.ONE_RUN,
        check_specs=[
            dg.AssetCheckSpec("is_whole", asset=KEY, description="No segment was altered after it was sealed.")
        ],
        group_name="lake",
        kinds={"bentoml", "parquet"},
        owners=OWNERS,
        tags={"layer": "log"},
        retry_policy=days.TRY_AGAIN,
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
        description="What was decided, by day; the events arrive in the inbox and are validated like others.",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from serving.compaction import compact
        from serving.vault import Vault

        chosen, lake = days.of(context), settings.lake
        vault = Vault(settings.home / "keys")
        done = compact(settings.decisions, lake, vault, days=chosen, first_day=settings.first_day)
        days.describe(context, chosen, lambda day: days.num_rows(lake.folder("log", DECISIONS.name, day)))
        return dg.MaterializeResult(
            metadata={
                "segments": done.num_segments,
                "decisions": done.num_decisions,
                "events_to_inbox": dict(done.num_events),
                "events_known_already": done.num_known,
                "events_before_the_first_day": done.num_too_old,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="is_whole",
                    passed=not done.damaged,
                    description=f"altered after sealing, left where they are: {', '.join(done.damaged)}"
                    if done.damaged
                    else None,
                )
            ],
        )

    return asset


def detector_decisions(spec: DetectorSpec, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """What one detector did on a day: actions, degraded answers, latency, and whether its scores are as evaluated."""
    key = dg.AssetKey([spec.name, "decisions"])

    @dg.asset(
        key=key,
        deps=[KEY],
        partitions_def=partitions,
        backfill_policy=days.ONE_RUN,
        automation_condition=as_soon_as_valid(),
        check_specs=[
            dg.AssetCheckSpec("scores_are_as_evaluated", asset=key, description="No label's scores drifted away.")
        ],
        group_name=spec.name,
        owners=spec.owners,
        kinds={"duckdb"},
        tags={"layer": "log"},
        description="What was decided by day, and how its scores lie beside those that the release was evaluated on.",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from orchestration.monitoring import day_of_decisions

        found = {day: day_of_decisions(settings.lake, settings.releases, spec.name, day) for day in days.of(context)}
        tables = {day: {"report": dg.MetadataValue.md(one.to_markdown())} for day, one in found.items()}
        days.describe(context, found, lambda day: found[day].metadata() | tables[day])
        drifted = [line for one in found.values() for line in one.drifted]
        check = dg.AssetCheckResult(
            check_name="scores_are_as_evaluated",
            passed=not drifted,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(drifted) or None,
        )
        return dg.MaterializeResult(check_results=[check])

    return asset


def sealed_segments_wait(job_name: str) -> dg.SensorDefinition:
    """A sealed segment starts the compaction of its day."""

    @dg.sensor(
        name="sealed_segments_wait",
        job_name=job_name,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="What the service logged is brought into the lake as soon as a segment is complete.",
    )
    def sensor(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> Iterator[dg.RunRequest]:
        from serving.segments import waiting

        for day, segments in sorted(waiting(settings.decisions).items()):
            names = hashlib.sha256("\n".join(path.name for path in segments).encode()).hexdigest()[:16]
            yield until_it_succeeds(context.instance, day, names)

    return sensor
