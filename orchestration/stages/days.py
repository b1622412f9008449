"""Days as partitions: the same for every table and view, and a range of them is one run."""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.settings import Settings

ONE_RUN = dg.BackfillPolicy.single_run()
# A run that met a locked file or a full disk is worth another try; a refused batch is not, and is not tried again.
TRY_AGAIN = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)
DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))


def partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """UTC days from the first that a lake may hold until today."""
    return dg.DailyPartitionsDefinition(start_date=settings.first_day.isoformat(), end_offset=1)


def of(context: dg.AssetExecutionContext) -> list[date]:
    """The days that a step is asked for, in order."""
    return sorted(date.fromisoformat(key) for key in context.partition_keys)


def num_rows(folder: Path) -> dict[str, Any]:
    """How many rows the files of one day hold, under the name that Dagster draws."""
    import pyarrow.parquet as pq

    return {"dagster/partition_row_count": sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))}


def describe(context: dg.AssetExecutionContext, days: Iterable[date], facts: Callable[[date], dict[str, Any]]) -> None:
    """Attach to the materialization of each day what is to be said about it."""
    for day in days:
        context.add_asset_metadata(facts(day), partition_key=day.isoformat())
