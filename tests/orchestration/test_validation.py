from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.lake import DAY_US, Lake, days_between, start_us
from orchestration import batches
from orchestration.gx import gx, gxe
from orchestration.gx_on_duckdb import PATCHED_VERSIONS, NotEvaluated, check, unpatched
from orchestration.validation import validate_batch, validate_batches
from tests.orchestration.conftest import FIRST, labels, payments

BAD_DAY = FIRST + timedelta(days=7)
WEEK = days_between(FIRST, BAD_DAY - timedelta(days=1))
DAMAGED = b"PAR1" + b"\xff" * 20 + (20).to_bytes(4, "little") + b"PAR1"  # a footer of the right length
Poison = Callable[[pa.Table], pa.Table]


def replaced(column: str, values: Any) -> Poison:
    def poison(rows: pa.Table) -> pa.Table:
        index = rows.column_names.index(column)
        return rows.set_column(index, column, values(rows))

    return poison


POISONS: dict[str, tuple[Poison, str]] = {
    "a wrong type": (replaced("amount", lambda t: pc.cast(t["amount"], pa.string())), "declaration"),
    "a missing column": (lambda t: t.drop_columns(["amount"]), "name"),
    "an unknown column": (lambda t: t.append_column("note", t["event_id"]), "declaration"),
    "nulls": (replaced("amount", lambda t: pc.if_else(pc.less(t["amount"], 50), None, t["amount"])), "amount"),
    "a value out of range": (replaced("amount", lambda t: pc.negate(t["amount"])), "amount"),
    "no number": (replaced("amount", lambda t: pa.array([float("nan")] * len(t))), "amount_is_finite"),
    "an infinite number": (replaced("amount", lambda t: pa.array([float("inf")] * len(t))), "amount_is_finite"),
    "ids twice in the batch": (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "event_id"),
    "ids of an earlier day": (
        replaced("event_id", lambda t: payments(FIRST, len(t))["event_id"]),
        "event_id_is_new",
    ),
    "a malformed id": (replaced("account_id", lambda t: pa.array(["a b"] * len(t))), "account_id_matches"),
    "events of another day": (replaced("event_us", lambda t: pc.subtract(t["event_us"], DAY_US)), "us_after_midnight"),
    "arrivals in the future": (replaced("arrived_us", lambda t: pc.add(t["arrived_us"], 365 * DAY_US)), "arrived_us"),
    "arrivals before the event": (replaced("arrived_us", lambda t: pc.subtract(t["event_us"], 1)), "arrived_us"),
    "ten times the volume": (lambda _: payments(BAD_DAY, 2000), "times_usual"),
    "a feed that broke off at noon": (
        lambda t: t.filter(pc.less(t["event_us"], start_us(BAD_DAY) + DAY_US // 2)),
        "hours_stale",
    ),
    "amounts in another unit": (replaced("amount", lambda t: pc.multiply(t["amount"], 100)), "amount_moved"),
    "a tenth of the volume": (lambda t: t.slice(0, 10), "times_usual"),
}


@pytest.fixture
def week(lake: Lake, arrive: Callable[..., None]) -> Lake:
    """A lake with a validated week."""
    for day in WEEK:
        arrive(day)
    assert all(report.passed for report in validate_batches(lake, "payments", WEEK))
    return lake


@pytest.mark.parametrize("name", POISONS)
def test_a_poisoned_batch_is_quarantined_whole_and_the_next_good_one_flows(
    week: Lake, arrive: Callable[..., None], name: str
) -> None:
    poison, column = POISONS[name]
    now_us = int(payments(BAD_DAY)["arrived_us"][-1].as_py()) + DAY_US
    arrive(BAD_DAY, poison(payments(BAD_DAY)))

    [report] = validate_batches(week, "payments", [BAD_DAY], now_us=now_us)

    assert not report.passed
    assert column in {outcome.column for outcome in report.refusals}
    assert column in report.reason
    assert week.days("events", "payments") == WEEK
    assert week.days("quarantine", "payments") == [BAD_DAY]
    assert week.days("inbox", "payments") == []
    assert "**refused**" in (week.folder("quarantine", "payments", BAD_DAY) / "report.md").read_text()
    arrive(BAD_DAY)
    assert validate_batch(week, "payments", BAD_DAY).passed
    assert week.days("events", "payments") == [*WEEK, BAD_DAY]
    assert week.days("quarantine", "payments") == []


def test_one_bad_day_in_a_range_is_found_and_the_others_flow(lake: Lake, arrive: Callable[..., None]) -> None:
    for day in WEEK:
        arrive(day, payments(day).drop_columns(["amount"]) if day == WEEK[4] else None)

    reports = validate_batches(lake, "payments", WEEK)

    assert [report.day for report in reports if not report.passed] == [WEEK[4]]
    assert lake.days("events", "payments") == [day for day in WEEK if day != WEEK[4]]


@pytest.mark.parametrize("content", [b"", b"event_id,amount\n1,2\n", b"PAR1" + b"\xff" * 20 + b"PAR1", DAMAGED])
def test_a_file_that_is_no_parquet_is_bad_data_and_no_crash(lake: Lake, content: bytes) -> None:
    folder = lake.folder("inbox", "payments", FIRST)
    folder.mkdir(parents=True)
    (folder / "part.parquet").write_bytes(content)

    report = validate_batch(lake, "payments", FIRST)

    assert report.reason == "batch: expect_file_to_be_parquet (1 bad)"


def test_importing_the_same_file_again_changes_nothing(week: Lake, arrive: Callable[..., None]) -> None:
    before = pc.sum(payments(WEEK[0])["amount"]).as_py()
    arrive(WEEK[0])

    report = validate_batch(week, "payments", WEEK[0])

    assert report.passed
    with week.connect() as connection:
        query = f"SELECT count(*), sum(amount) FROM payments WHERE event_id LIKE 'p-{WEEK[0]}-%'"
        assert connection.execute(query).fetchone() == (200, pytest.approx(before))


def test_a_day_keeps_its_verdict_until_something_new_arrives(week: Lake, arrive: Callable[..., None]) -> None:
    arrive(BAD_DAY, payments(BAD_DAY).slice(0, 5))
    validate_batch(week, "payments", BAD_DAY)

    standing = validate_batches(week, "payments", [WEEK[0], BAD_DAY, BAD_DAY + timedelta(days=1)])

    assert [(report.passed, report.num_rows) for report in standing] == [(True, 200), (False, 0), (True, 0)]


def test_an_unknown_label_is_refused(lake: Lake) -> None:
    lake.write("inbox", "labels", labels(FIRST, label="fruad"), day=FIRST)

    report = validate_batch(lake, "labels", FIRST, label_names={"fraud"})

    assert [outcome.column for outcome in report.refusals] == ["label"]


def test_known_labels_are_accepted_on_the_day_on_which_they_became_known(lake: Lake) -> None:
    known_later = labels(FIRST)
    index = known_later.column_names.index("event_us")
    known_later = known_later.set_column(index, "event_us", pc.subtract(known_later["event_us"], 9 * DAY_US))
    lake.write("inbox", "labels", known_later, day=FIRST)

    assert validate_batch(lake, "labels", FIRST, label_names={"fraud"}).passed


def test_a_report_shows_ids_and_no_values(week: Lake, arrive: Callable[..., None]) -> None:
    secret = "attack at dawn"
    arrive(BAD_DAY, replaced("account_id", lambda t: pa.array([secret] * len(t)))(payments(BAD_DAY)))

    report = validate_batch(week, "payments", BAD_DAY)

    assert f"p-{BAD_DAY}-0" in report.to_markdown()
    assert secret not in report.to_markdown() + report.to_json()


def test_an_expectation_that_cannot_be_evaluated_is_an_error_and_moves_nothing(
    lake: Lake, arrive: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [gxe.ExpectColumnValuesToMatchRegex(column="day", regex="^2")]
    monkeypatch.setattr("orchestration.expectations.day_is_usual", lambda _: broken)
    arrive(FIRST)

    with pytest.raises(NotEvaluated, match="Regex is not supported for dialect duckdb"):
        validate_batch(lake, "payments", FIRST)

    assert lake.days("inbox", "payments") == [FIRST]
    assert lake.days("events", "payments") == []


def test_the_patch_is_still_needed_and_names_the_installed_version(tmp_path: Any, monkeypatch: Any) -> None:
    """When this fails, Great Expectations reads DuckDB by itself: delete the patch in gx_on_duckdb.py."""
    assert gx.__version__.startswith(PATCHED_VERSIONS)
    with duckdb.connect(tmp_path / "one.duckdb") as connection:
        connection.execute("CREATE TABLE batch AS SELECT 1 AS event_id")
    monkeypatch.setattr("orchestration.gx_on_duckdb._execute_query", unpatched)

    with pytest.raises(NotEvaluated):
        check(
            tmp_path / "one.duckdb",
            "batch",
            [gxe.ExpectColumnValuesToBeUnique(column="event_id")],
            id_column="event_id",
        )


def test_a_file_with_an_apostrophe_in_its_name_is_accepted(lake: Lake) -> None:
    lake.write("inbox", "payments", payments(FIRST), day=FIRST, name="o'brien")

    report = validate_batch(lake, "payments", FIRST)

    assert report.passed, report.reason
    with lake.connect() as connection:
        assert connection.execute("SELECT count(*) FROM payments").fetchall() == [(200,)]


def test_two_runs_that_accept_the_same_day_at_once_lose_nothing(lake: Lake, arrive: Callable[..., None]) -> None:
    days, start = days_between(FIRST, FIRST + timedelta(days=99)), Barrier(2)
    for day in days:
        arrive(day, payments(day, 1))

    def accept_all() -> int:
        num_accepted = 0
        for day in days:
            batch = batches.read(lake, "payments", day)
            start.wait(timeout=10)
            try:
                batches.accept(lake, batch)
            except RuntimeError:  # the other run was first
                continue
            num_accepted += 1
        return num_accepted

    with ThreadPoolExecutor(2) as both:
        done = [both.submit(accept_all), both.submit(accept_all)]

    assert sum(future.result() for future in done) == len(days)
    assert lake.days("events", "payments") == days
    assert lake.days("inbox", "payments") == []
