"""The project with one more detector, and the servers of the team profile."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis

ROOT = Path(__file__).parents[2]
ADMIN = "postgresql:///postgres"
REDIS = "127.0.0.1:6379,db=13"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which somebody has just added one more detector."""
    copy = tmp_path_factory.mktemp("project")
    for package in ("feature_repo", "training", "serving", "orchestration", "infra"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copy(ROOT / "requirements.txt", copy)
    added = copy / "orchestration" / "defs" / "spam"
    added.mkdir()
    shutil.copy(Path(__file__).with_name("spam.yaml"), added / "defs.yaml")
    return copy


@pytest.fixture(scope="module")
def embedded(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a laptop."""
    return {**os.environ, "PYTHONPATH": str(project), "MEWS_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture
def team(embedded: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a team: three databases in PostgreSQL and one of Redis, all of this test's own."""
    server = {"PGHOST": "127.0.0.1", "PGUSER": os.environ.get("PGUSER", "root")}
    store = redis.Redis(db=13, socket_timeout=3)
    try:
        psycopg.connect(ADMIN, connect_timeout=3, host=server["PGHOST"], user=server["PGUSER"]).close()
        store.flushdb()
    except (psycopg.OperationalError, redis.ConnectionError):
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no PostgreSQL or no Redis on this machine")
    names = {part: f"mews_test_{part}_{uuid.uuid4().hex[:8]}" for part in ("dagster", "mlflow", "feast")}
    auth = (ROOT / "infra" / "team" / "mlflow_auth.ini").read_text()
    (tmp_path / "auth.ini").write_text(auth.replace("///mlflow", f"///{names['mlflow']}"))
    with ExitStack() as cleaning:
        admin = cleaning.enter_context(
            psycopg.connect(ADMIN, autocommit=True, host=server["PGHOST"], user=server["PGUSER"])
        )
        cleaning.callback(store.flushdb)
        for name in names.values():
            admin.execute(f"CREATE DATABASE {name}")
            cleaning.callback(admin.execute, f"DROP DATABASE {name} WITH (FORCE)")
        yield {
            **embedded,
            **server,
            "MEWS_DAGSTER_DB": f"postgresql+psycopg2:///{names['dagster']}",
            "MLFLOW_BACKEND_STORE_URI": f"postgresql:///{names['mlflow']}",
            "MEWS_FEAST_REGISTRY": f"postgresql+psycopg:///{names['feast']}",
            "MEWS_REDIS": REDIS,
            "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-test-password",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": "a-long-test-password",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-long-test-key",
        }
