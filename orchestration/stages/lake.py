"""A table of the lake: what arrived for a day is validated and then flows, or lies in quarantine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_repo.tables import Table
from orchestration.detectors import known_labels
from orchestration.settings import Settings
from orchestration.stages import days

if TYPE_CHECKING:
    from orchestration.validation import Report

OWNERS = ["team:trust-and-safety"]


def lake_table(table: Table, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """Move each day's batch from the inbox to the events; a refused one fails the blocking check `is_valid`."""
    key = dg.AssetKey(["lake", table.name])
    columns = [
        dg.TableColumn(
            name,
            column.type,
            description=column.meaning,
            constraints=_constraints(column.is_nullable or column.is_forgettable),
        )
        for name, column in table.columns.items()
    ]

    @dg.asset(
        key=key,
        partitions_def=partitions,
        backfill_policy=days.ONE_RUN,
        check_specs=[
            dg.AssetCheckSpec("is_valid", asset=key, blocking=True, description="A bad batch goes into quarantine.")
        ],
        output_required=False,
        group_name="lake",
        kinds={"greatexpectations", "duckdb", "parquet"},
        owners=OWNERS,
        tags={"layer": "events"},
        pool=f"lake_{table.name}",
        freshness_policy=days.DAILY,
        retry_policy=days.TRY_AGAIN,
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
        description=f"{table.meaning.capitalize()}: validated whole by day, or quarantined whole.",
    )
    def asset(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckResult]:
        from orchestration.validation import validate_batches

        reports = validate_batches(settings.lake, table.name, days.of(context), label_names=known_labels(settings.defs))
        yield from _events(context, key, reports)

    return asset


def _events(
    context: dg.AssetExecutionContext, key: dg.AssetKey, reports: "list[Report]"
) -> Iterator[dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckResult]:
    """All days were good: one result. Otherwise only the good days count as materialized, and nothing follows.

    Days on which nothing ever arrived do not count as materialized either.
    """
    facts = {report.day: _facts(report) for report in reports}
    refused = [report for report in reports if not report.passed]
    check = dg.AssetCheckResult(
        passed=not refused,
        asset_key=key,
        check_name="is_valid",
        description="; ".join(f"{report.day}: {report.reason}" for report in refused[:5]) or None,
        metadata=_check_metadata(reports, refused),
    )
    if not any(report.num_rows or not report.passed for report in reports):
        yield check
    elif not refused:
        days.describe(context, facts, facts.__getitem__)
        yield dg.MaterializeResult(check_results=[check])
    else:
        for report in reports:
            if report.passed:
                yield dg.AssetMaterialization(key, partition=report.day.isoformat(), metadata=facts[report.day])
        yield check


def _facts(report: "Report") -> dict[str, Any]:
    return {"dagster/partition_row_count": report.num_rows, "new": not report.is_standing}


def _check_metadata(reports: "list[Report]", refused: "list[Report]") -> dict[str, Any]:
    shown = refused or reports
    return {
        "num_days": len(reports),
        "num_rows": sum(report.num_rows for report in reports),
        "num_refused": len(refused),
        "report": dg.MetadataValue.md("\n".join(report.to_markdown() for report in shown[:3])),
    }


def _constraints(is_nullable: bool) -> dg.TableColumnConstraints:
    return dg.TableColumnConstraints(nullable=is_nullable)
