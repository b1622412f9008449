from copy import deepcopy
from pathlib import Path

import pytest

from feature_repo import leaks
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
