"""The world keeps its contract, its prevalences and its clock, and is the same each time."""

from datetime import timedelta
from pathlib import Path

import pytest

from feature_repo.lake import Lake, Zone
from feature_repo.tables import EVENT_TABLES, TABLES, Column
from orchestration.world.scale import Scale
from orchestration.world.world import Summary, World


def one(lake: Lake, sql: str, *, zone: Zone = "inbox", table: str = "requests") -> tuple:
    """The first row of a query over `rows`, one table of the lake."""
    with lake.connect() as connection:
        row = connection.execute(f"WITH rows AS ({lake.select(zone, table)}) {sql}").fetchone()
    assert row is not None
    return row


def contents(lake: Lake) -> dict[str, bytes]:
    return {str(f.relative_to(lake.root)): f.read_bytes() for f in sorted(lake.root.rglob("*.parquet"))}


def test_the_same_seed_writes_the_same_bytes(empty: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "other")
    scale = Scale(num_accounts=200, num_days=4)

    World(scale).generate(empty)
    World(scale).generate(other)

    assert contents(empty) == contents(other)


def test_a_day_generated_later_is_the_day_generated_at_once(empty: Lake, tmp_path: Path) -> None:
    other, world = Lake(tmp_path / "other"), World(Scale(num_accounts=200, num_days=18))
    days = world.days()

    world.generate(empty)
    for first, last in [(days[0], days[15]), (days[16], days[16]), (days[17], days[17])]:
        World(world.scale).generate(other, first, last)

    assert contents(empty) == contents(other)


def test_another_seed_makes_another_world(empty: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "other")

    World(Scale(seed=1, num_accounts=200, num_days=1)).generate(empty)
    World(Scale(seed=2, num_accounts=200, num_days=1)).generate(other)

    assert contents(empty) != contents(other)


def test_the_summary_counts_what_was_written(filled: tuple[Lake, Summary]) -> None:
    lake, summary = filled

    counted = {table: one(lake, "SELECT count(*) FROM rows", table=table)[0] for table in TABLES}

    assert counted == summary.num_rows


@pytest.mark.parametrize(("table", "name"), [(t, n) for t, table in TABLES.items() for n in table.columns])
def test_each_column_keeps_its_contract(lake: Lake, table: str, name: str) -> None:
    column = TABLES[table].columns[name]

    broken = one(lake, f"SELECT count(*) FILTER (WHERE {_broken(name, column)}) FROM rows", table=table)[0]

    assert broken == 0


def _broken(name: str, column: Column) -> str:
    tests = [f"typeof({name}) <> '{column.type}'"]
    if not column.is_nullable:
        tests.append(f"{name} IS NULL")
    if column.minimum is not None:
        tests.append(f"{name} < {column.minimum}")
    if column.maximum is not None:
        tests.append(f"{name} > {column.maximum}")
    if column.values:
        tests.append(f"{name} NOT IN {(*column.values, '')}")
    if column.pattern:
        tests.append(f"NOT regexp_matches({name}, '{column.pattern}')")
    return " OR ".join(tests)


@pytest.mark.parametrize("table", EVENT_TABLES)
def test_event_ids_are_unique_and_each_has_its_truth(lake: Lake, table: str) -> None:
    truth = lake.select("truth", f"{table}_truth")

    rows, ids, known = one(
        lake,
        "SELECT count(*), count(DISTINCT event_id), count(*) FILTER (WHERE event_id IN"
        f" (SELECT event_id FROM ({truth}))) FROM rows",
        table=table,
    )

    assert rows == ids == known > 0


@pytest.mark.parametrize("table", TABLES)
def test_a_partition_holds_its_own_day_only(lake: Lake, table: str) -> None:
    moment = "known_us" if table == "labels" else "event_us"
    folder = lake.folder("inbox", table)

    strangers = one(
        lake,
        f"SELECT count(*) FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
        f" WHERE make_timestamp({moment})::DATE <> day",
    )[0]

    assert strangers == 0


@pytest.mark.parametrize("table", EVENT_TABLES)
def test_about_one_event_in_a_hundred_arrives_late(lake: Lake, table: str) -> None:
    late, early = one(
        lake,
        "SELECT avg((arrived_us > event_us)::INT), count(*) FILTER (WHERE arrived_us < event_us) FROM rows",
        table=table,
    )

    assert 0.005 < late < 0.015
    assert early == 0


@pytest.mark.parametrize(
    ("table", "label", "low", "high"),
    [
        ("requests", "any_violation", 0.025, 0.05),
        ("requests", "jailbreak_injection", 0.005, 0.02),
        ("requests", "fraud_spam", 0.004, 0.02),
        ("requests", "malware_cyber", 0.004, 0.02),
        ("requests", "harassment", 0.002, 0.01),
        ("requests", "hate", 0.0008, 0.01),
        ("requests", "self_harm", 0.0008, 0.01),
        ("requests", "sexual", 0.0008, 0.01),
        ("requests", "violence", 0.0008, 0.01),
        ("requests", "illicit_other", 0.0008, 0.01),
        ("requests", "toxic", 0.004, 0.03),
        ("payments", "fraud", 0.007, 0.025),
    ],
)
def test_violations_are_rare_but_there(lake: Lake, table: str, label: str, *, low: float, high: float) -> None:
    (share,) = one(lake, f"SELECT avg({label}) FROM rows", zone="truth", table=f"{table}_truth")

    assert low < share < high


def test_about_one_account_in_twenty_is_abusive(lake: Lake) -> None:
    truth = lake.select("truth", "accounts_truth")

    (share,) = one(
        lake,
        "SELECT avg(bad) FROM (SELECT account_id,"
        " max(account_farm + jailbreak_probing + scraping + trial_abuse) AS bad"
        f" FROM rows JOIN ({truth}) USING (event_id) GROUP BY account_id)",
        table="accounts",
    )

    assert 0.03 < share < 0.09


def test_campaigns_start_and_end(lake: Lake, world: World) -> None:
    spans = f"""SELECT campaign, min(event_us) AS first, max(event_us) AS last, count(*) AS num
                FROM ({lake.select("truth", "requests_truth")}) WHERE campaign LIKE 'scraping%' GROUP BY campaign"""

    num, started, ended = one(
        lake,
        f"SELECT count(*), count(*) FILTER (WHERE first > {world.scale.start_us(2)}),"
        f" count(*) FILTER (WHERE last < {world.scale.start_us(world.scale.num_days - 2)}) FROM ({spans})",
    )

    assert num >= 3
    assert started >= 2
    assert ended >= 1


def test_live_events_are_those_that_the_lake_gets_in_order_of_time(world: World, lake: Lake) -> None:
    when = world.days()[-1]

    live = list(world.live_events(when))

    moments = [event.event["event_us"] for event in live]
    assert moments == sorted(moments)
    with lake.connect() as connection:
        for table in EVENT_TABLES:
            stored = connection.sql(lake.select("inbox", table, first=when, last=when)).to_arrow_table()
            assert [e.event for e in live if e.table == table] == stored.to_pylist()


def test_the_world_goes_on_after_its_last_day(world: World) -> None:
    after = world.days()[-1] + timedelta(days=1)

    live = list(world.live_events(after))

    assert {event.table for event in live} == set(EVENT_TABLES)
    assert any(any(event.truth.values()) for event in live)


@pytest.mark.parametrize("values", [{"num_accounts": 10}, {"num_days": 0}])
def test_a_world_too_small_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Scale(**values)


def test_a_bank_says_one_thing_about_a_payment_at_a_time_and_at_midnight(lake: Lake) -> None:
    num, num_moments, num_at_midnight = one(
        lake,
        "SELECT count(*), count(DISTINCT (event_id, known_us)), count(*) FILTER (WHERE known_us % 86400000000 = 0)"
        " FROM rows WHERE event_table = 'payments'",
        table="labels",
    )

    assert num == num_moments == num_at_midnight > 0
