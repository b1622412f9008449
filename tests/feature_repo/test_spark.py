import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from feature_repo import compute
from feature_repo.lake import Lake, day_of
from feature_repo.view import DAY, HOUR, MINUTE
from feature_repo.windows import VIEWS
from tests.feature_repo import records

if shutil.which("java") is None and not os.environ.get("CI"):
    pytest.skip("no Java runtime: the feature text is not run on Spark here", allow_module_level=True)

from pyspark.sql import SparkSession

from feature_repo import spark as engine

FIRST, LAST = day_of(records.START), day_of(records.START + 9 * DAY)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    warehouse = str(tmp_path_factory.mktemp("warehouse"))
    small = {
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.codegen.wholeStage": "false",  # a few rows are read sooner than code is compiled for them
        "spark.sql.warehouse.dir": warehouse,
        "spark.driver.memory": "1g",
    }
    with engine.session("local[2]", **small) as session:
        yield session


def _tables(generator: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Ten days of few entities: ties, late facts, nulls, verdicts."""
    tables: dict[str, list[dict[str, Any]]] = {"requests": [], "payments": [], "accounts": [], "labels": []}
    own = {"kind": "daily", "text": "-", "email_domain": None}
    for number in range(240):
        table = ("requests", "payments", "accounts")[number % 3]
        at_us = records.START + generator.randrange(10) * DAY + generator.choice([0, 0, HOUR, HOUR + 1, 5 * MINUTE])
        row = {"event_id": f"{table}-{number}", "event_us": at_us, "num_tokens": number, "amount": number / 7, **own}
        row["arrived_us"] = at_us + generator.choice([0, 0, 0, 3 * DAY])
        row["plan"] = generator.choice([None, "free", "paid"])
        for name, letter in {
            "account_id": "a",
            "ip": "i",
            "card_id": "c",
            "merchant_id": "m",
            "device_id": "d",
        }.items():
            row[name] = generator.choice([None, f"{letter}1", f"{letter}2", f"{letter}3"])
        row["account_id"] = row["account_id"] or "a1"
        row["kind"] = generator.choice(["signup", "daily"]) if table == "accounts" else "prompt"
        tables[table].append({name: row[name] for name in records.TABLES[table].columns})
        if table == "payments":
            known_us = at_us + generator.choice([HOUR, DAY])
            tables["labels"].append(records.label_row(str(row["event_id"]), at_us, known_us, number % 2))
    return tables


def _rows(lake: Lake, view: str) -> list[tuple[Any, ...]]:
    names = ", ".join([VIEWS[view].entity, "event_us", "created_us", *(f.name for f in VIEWS[view].features)])
    files = str(lake.folder("features", view) / "*" / "*.parquet")
    query = f"SELECT {names}, event_timestamp, created, day FROM read_parquet('{files}', hive_partitioning = true)"
    return sorted(duckdb.sql(f"SET TimeZone = 'UTC'; {query}").fetchall(), key=str)


VIEWS_OF_EACH_KIND = ["account_activity", "merchant_frauds", "account_profile"]


def test_every_kind_of_view_has_the_same_rows_on_duckdb_and_on_spark(spark: SparkSession, tmp_path: Path) -> None:
    tables = _tables(random.Random(5))
    ours, theirs = (records.write(tmp_path / name, tables) for name in ("duckdb", "spark"))

    compute.compute_days(ours, FIRST, LAST, views=VIEWS_OF_EACH_KIND)
    engine.compute_days(spark, theirs, FIRST, LAST, views=VIEWS_OF_EACH_KIND)

    for view in VIEWS_OF_EACH_KIND:
        assert _rows(ours, view), view
        assert _rows(theirs, view) == _rows(ours, view), view


def test_a_day_is_there_once_whichever_engine_computed_it_before(spark: SparkSession, tmp_path: Path) -> None:
    lake = records.write(tmp_path, _tables(random.Random(3)))
    compute.compute_days(lake, FIRST, LAST, views=["card_activity"])
    on_duckdb = _rows(lake, "card_activity")

    engine.compute_days(spark, lake, FIRST, LAST, views=["card_activity"])
    on_spark = _rows(lake, "card_activity")
    compute.compute_days(lake, FIRST, LAST, views=["card_activity"])

    assert on_spark == on_duckdb == _rows(lake, "card_activity")


def test_a_day_computed_again_on_spark_replaces_that_day_alone(spark: SparkSession, tmp_path: Path) -> None:
    lake = records.write(tmp_path, _tables(random.Random(6)))
    engine.compute_days(spark, lake, FIRST, LAST, views=["card_activity"])
    before = _rows(lake, "card_activity")

    engine.compute_days(spark, lake, LAST, LAST, views=["card_activity"])

    assert _rows(lake, "card_activity") == before
