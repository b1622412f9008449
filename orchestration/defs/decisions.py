"""The decision log on its way back to the lake, and the end of what is kept there."""

import dagster as dg

from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.decisions import decisions, detector_decisions, sealed_segments_wait
from orchestration.stages.retention import retention


@dg.definitions
def decision_log() -> dg.Definitions:
    """The table, what each detector did by day, and the job that a look at the log and a daily schedule start."""
    settings = Settings.from_environment()
    partitions = days.partitions(settings)
    table = decisions(partitions)
    watched = [detector_decisions(detector.spec, partitions) for detector in read_detectors(settings.defs).values()]
    old = retention()
    let_go = dg.define_asset_job("let_go", selection=dg.AssetSelection.assets(old))
    compact = dg.define_asset_job("compact", selection=dg.AssetSelection.assets(table))
    daily = dg.build_schedule_from_partitioned_job(compact, name="compact_daily", hour_of_day=0, minute_of_hour=20)
    return dg.Definitions(
        assets=[table, *watched, old],
        jobs=[compact, let_go],
        schedules=[daily, dg.ScheduleDefinition(job=let_go, cron_schedule="30 2 * * *", name="let_go_daily")],
        sensors=[sealed_segments_wait(compact.name)],
    )
