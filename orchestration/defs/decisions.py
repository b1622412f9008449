"""The decision log on its way back to the lake."""

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.decisions import decisions, sealed_segments_wait


@dg.definitions
def decision_log() -> dg.Definitions:
    """One asset for the table; a look at the log and a daily schedule start the same job."""
    table = decisions(days.partitions(Settings.from_environment()))
    compact = dg.define_asset_job("compact", selection=dg.AssetSelection.assets(table))
    daily = dg.build_schedule_from_partitioned_job(compact, name="compact_daily", hour_of_day=0, minute_of_hour=20)
    return dg.Definitions(
        assets=[table], jobs=[compact], schedules=[daily], sensors=[sealed_segments_wait(compact.name)]
    )
