"""A poisoned batch stops at the checks, and an unspoiled world passes them."""

import shutil
from pathlib import Path

import pytest

from feature_repo.lake import Lake
from feature_repo.tables import TABLES
from orchestration.validation import validate_batches
from orchestration.world.accounts import MISUSE
from orchestration.world.grammar import LABELS
from orchestration.world.poison import KINDS, poison
from orchestration.world.scale import Scale
from orchestration.world.world import World

NAMES = (*LABELS, *MISUSE, "fraud")
CASES = {
    "wrong_type": "payments",
    "nulls": "accounts",
    "duplicate_ids": "requests",
    "future": "labels",
    "unknown_label": "labels",
    "volume": "requests",
}


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, World]:
    lake, world = Lake(tmp_path_factory.mktemp("week")), World(Scale(num_accounts=400, num_days=6))
    world.generate(lake)
    return lake, world


@pytest.mark.parametrize("table", TABLES)
def test_a_world_passes_the_checks(week: tuple[Lake, World], tmp_path: Path, table: str) -> None:
    shutil.copytree(week[0].root, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")

    reports = validate_batches(lake, table, lake.days("inbox", table), label_names=NAMES)

    assert [report.day for report in reports if not report.passed] == []


@pytest.mark.parametrize(("kind", "table"), CASES.items())
def test_a_poisoned_day_is_quarantined_and_no_other(
    week: tuple[Lake, World], tmp_path: Path, *, kind: str, table: str
) -> None:
    shutil.copytree(week[0].root, tmp_path / "lake")
    lake, bad = Lake(tmp_path / "lake"), week[1].days()[-1]

    poison(lake, kind, table=table, day=bad)
    reports = validate_batches(lake, table, lake.days("inbox", table), label_names=NAMES)

    assert [report.day for report in reports if not report.passed] == [bad]
    assert lake.days("quarantine", table) == [bad]


def test_every_kind_of_poison_is_tried() -> None:
    assert set(CASES) == set(KINDS)


def test_an_unknown_kind_of_poison_is_refused(week: tuple[Lake, World]) -> None:
    with pytest.raises(ValueError, match="it must be one of wrong_type"):
        poison(week[0], "arsenic", table="requests", day=week[1].days()[0])
