"""One small world, generated once."""

from pathlib import Path

import pytest

from feature_repo.lake import Lake
from orchestration.world.scale import Scale
from orchestration.world.world import Summary, World


@pytest.fixture(scope="session")
def world() -> World:
    return World(Scale(seed=3, num_accounts=1_500, num_days=20))


@pytest.fixture(scope="session")
def filled(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Summary]:
    lake = Lake(tmp_path_factory.mktemp("world"), memory_limit="1GB")
    return lake, world.generate(lake)


@pytest.fixture(scope="session")
def lake(filled: tuple[Lake, Summary]) -> Lake:
    return filled[0]


@pytest.fixture
def empty(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", memory_limit="1GB")
