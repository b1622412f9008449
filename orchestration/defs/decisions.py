"""The decision log on its way back to the lake."""

import dagster as dg

from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.decisions import decisions, detector_decisions, sealed_segments_wait


@dg.definitions
def decision_log() -> dg.Definitions:
    """The table, what each detector did by day, and the job that a look at the log and a daily schedule start."""
    settings = Settings.from_environment()
    partitions = days.partitions(settings)
    table = decisions(partitions)
    watched = [detector_decisions(detector.spec, partitions) for detector in read_detectors(settings.defs).values()]
    compact = dg.define_asset_job("compact", selection=dg.AssetSelection.assets(table))
    daily = dg.build_schedule_from_partitioned_job(compact, name="compact_daily", hour_of_day=0, minute_of_hour=20)
    return dg.Definitions(
        assets=[table, *watched],
        jobs=[compact],
        schedules=[daily],
        sensors=[sealed_segments_wait(compact.name)],
    )
