"""The tables of the lake, and the job that takes in what arrived and lets verdicts count at once."""

import dagster as dg

from feature_repo.tables import TABLES
from orchestration.settings import Settings
from orchestration.stages import days, news
from orchestration.stages.features import online_verdicts
from orchestration.stages.lake import lake_table


@dg.definitions
def lake() -> dg.Definitions:
    """One asset per table; a daily schedule and a look into the inbox start the same job."""
    partitions = days.partitions(Settings.from_environment())
    tables = [lake_table(table, partitions) for table in TABLES.values()]
    taken_in = [*tables, online_verdicts(partitions)]
    ingest = dg.define_asset_job("ingest", selection=dg.AssetSelection.assets(*taken_in))
    daily = dg.build_schedule_from_partitioned_job(ingest, name="ingest_daily", hour_of_day=1)
    return dg.Definitions(assets=taken_in, jobs=[ingest], schedules=[daily], sensors=[news.arrivals(ingest.name)])
