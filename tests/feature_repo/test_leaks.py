from copy import deepcopy
from pathlib import Path

import duckdb
import pytest

from feature_repo import leaks
from feature_repo.lake import day_of
from tests.feature_repo import plants


@pytest.fixture
def made(tmp_path: Path) -> plants.Set:
    return plants.clean(tmp_path / "lake")


def test_a_clean_set_raises_no_alarm(made: plants.Set, tmp_path: Path) -> None:
    assert leaks.find(made.lake, made.write(tmp_path / "set")) == []


def test_each_planted_leak_is_found_with_its_column_and_kind(made: plants.Set, tmp_path: Path) -> None:
    for name, (plant, kind, column) in plants.PLANTS.items():
        planted = plants.Set(made.lake, made.rows.copy(), deepcopy(made.manifest))
        plant(planted)

        found = leaks.find(planted.lake, planted.write(tmp_path / "set"))

        assert (kind, column) in {(leak.kind, leak.column) for leak in found}, name
        assert all(leak.why for leak in found), name
        plants.log_decisions(made)  # as it was


def test_a_feature_that_the_release_does_not_read_is_not_compared(made: plants.Set, tmp_path: Path) -> None:
    plants.log_decisions(made, lambda values: values.pop("mean_amount_7d"))

    assert leaks.find(made.lake, made.write(tmp_path / "set")) == []


def test_the_decisions_of_a_day_are_held_against_what_the_lake_knew_then(made: plants.Set) -> None:
    day = day_of(int(made.rows["event_us"].max()))
    right = leaks.skew_of_day(made.lake, day, events="payments", feature_service=plants.SERVICE)
    plants.log_decisions(made, lambda values: values.update(num_payments_7d=values["num_payments_7d"] + 1))

    [wrong] = leaks.skew_of_day(made.lake, day, events="payments", feature_service=plants.SERVICE)

    assert right == []
    assert (wrong.kind, wrong.column) == ("skew", "num_payments_7d")


def told_by_domain(domain: str, label: str) -> list[leaks.Leak]:
    """What is said of 4,000 rows `i` whose domain and label are these SQL expressions."""
    with duckdb.connect() as connection:
        rows = f"SELECT {domain} AS email_domain, ({label})::TINYINT AS fraud FROM range(4000) t(i)"
        connection.execute(f"CREATE TABLE rows AS {rows}")
        return list(leaks.telling(connection, ["email_domain"], "fraud"))


@pytest.mark.parametrize(
    "domain",
    [
        "'own' || i",
        "CASE WHEN hash(i * 31) % 100 < 95 THEN 'own' || i ELSE 'mail' || i % 5 END",
        "'of two ' || i // 2",
        "'of all'",
    ],
)
def test_a_text_that_says_nothing_of_random_labels_raises_no_alarm(domain: str) -> None:
    assert told_by_domain(domain, "hash(i * 7919) % 20 = 0") == []


@pytest.mark.parametrize("num_values", [20, 400])
def test_a_text_whose_values_are_the_answer_is_found(num_values: int) -> None:
    [leak] = told_by_domain(f"'d' || i % {num_values}", "i % 20 = 0")

    assert (leak.kind, leak.column) == ("alone", "email_domain")
