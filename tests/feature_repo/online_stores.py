"""Real online stores for tests: SQLite below a folder, and Redis under a project of its own that is cleaned up."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from feature_repo.states import States, open_states

REDIS = "127.0.0.1:6379,db=13"


def opened(kind: str, home: Path, project: str = "mews") -> States:
    """What a process of its own opens."""
    return open_states(home, redis=REDIS if kind == "redis" else "", deadline_s=10, project=project)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=pytest.mark.service)])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        require_redis()
    return str(request.param)


@pytest.fixture
def project(kind: str) -> Iterator[str]:
    """A name under which nobody else keeps anything."""
    name = f"test{uuid.uuid4().hex[:12]}"
    yield name
    if kind == "redis":
        forget(name)


@pytest.fixture
def states(kind: str, project: str, tmp_path: Path) -> States:
    return opened(kind, tmp_path, project)


def require_redis() -> None:
    try:
        redis.Redis(socket_timeout=3).ping()
    except redis.ConnectionError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no Redis on this machine")


def forget(project: str) -> None:
    with redis.Redis(db=13) as client:
        for key in client.scan_iter(match=f"*{project}*", count=10_000):
            client.delete(key)
