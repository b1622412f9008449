"""The same feature text on Spark, for events that outgrow one machine: needs the `spark` extra and a Java runtime."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

from pyspark.sql import DataFrame, SparkSession

from feature_repo import text
from feature_repo.compute import first_needed
from feature_repo.lake import DAY_US, Lake, days_between, start_us
from feature_repo.tables import TABLES, Table
from feature_repo.view import View
from feature_repo.windows import ALL, VIEWS, asked_at

_TYPES = {"VARCHAR": "STRING"}  # all other types of the contract are spelled alike
_CONFIGURATION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionOverwriteMode": "dynamic",  # a day that is written again replaces that day alone
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@contextmanager
def session(master: str, **configuration: str) -> Iterator[SparkSession]:
    """A session on `local[N]` or on a cluster (`spark://...`, `yarn`, `k8s://...`), stopped at the end."""
    builder = SparkSession.builder.master(master).appName("mews-features")
    spark = builder.config(map={**_CONFIGURATION, **configuration}).getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def compute_days(spark: SparkSession, lake: Lake, first: date, last: date, *, views: Sequence[str] = ALL) -> None:
    """Write the feature rows of some days, as `feature_repo.compute.compute_days` does."""
    for name in views:
        view = VIEWS[name]
        for table in TABLES.values():
            _table(spark, lake, table, first=first_needed(view, first), last=last).createOrReplaceTempView(table.name)
        end_us = start_us(last) + DAY_US
        moments = text.moments(view, tables=asked_at(view), first_us=start_us(first), end_us=end_us)
        spark.sql(moments).createOrReplaceTempView("moments")
        _write(lake, view, evaluate(spark, view), first=first, last=last)


def evaluate(spark: SparkSession, view: View) -> DataFrame:
    """The features of a view at the `moments` (entity, us) of a session, one row per moment and late fact."""
    spark.sql(text.near(view, text.facts(view))).createOrReplaceTempView("facts")
    spark.sql(text.points(view)).createOrReplaceTempView("points")
    return spark.sql(text.features(view))


def _table(spark: SparkSession, lake: Lake, table: Table, *, first: date | None, last: date) -> DataFrame:
    files = [str(file) for file in lake.files("events", table.name, first=first, last=last)]
    schema = ", ".join(f"{name} {_TYPES.get(c.type, c.type)}" for name, c in table.columns.items())
    return spark.read.schema(schema).parquet(*files) if files else spark.createDataFrame([], schema)


def _write(lake: Lake, view: View, rows: DataFrame, *, first: date, last: date) -> None:
    stamps = ["timestamp_micros(event_us) AS event_timestamp", "timestamp_micros(created_us) AS created"]
    dated = rows.selectExpr("*", *stamps, "date_format(timestamp_micros(event_us), 'yyyy-MM-dd') AS day").cache()
    days = {row.day for row in dated.select("day").distinct().collect()}
    for day in days_between(first, last):
        if day.isoformat() not in days:
            lake.remove("features", view.name, day)
    if days:
        dated.repartition("day").write.partitionBy("day").mode("overwrite").parquet(
            str(lake.folder("features", view.name).absolute())
        )
    dated.unpersist()
