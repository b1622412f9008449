"""The team profile by configuration alone: the files under infra/team make the tools use PostgreSQL and Redis."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from orchestration import stack
from orchestration.child import Process
from orchestration.settings import Settings
from orchestration.supervisor import supervise
from tests.orchestration.test_stack import ports, tick_until

__all__ = ["ports"]
pytestmark = [pytest.mark.service, pytest.mark.slow]
SERVER = {"PGHOST": "127.0.0.1", "PGUSER": os.environ.get("PGUSER", "root")}
ADMIN = "postgresql:///postgres"
MATERIALIZE = """
import dagster as dg

@dg.asset
def row() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 7})

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([row], instance=instance).success
"""


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVER.items():
        monkeypatch.setenv(name, value)
    try:
        psycopg.connect(ADMIN, connect_timeout=3).close()
        redis.Redis(socket_timeout=3).ping()
    except (psycopg.OperationalError, redis.ConnectionError):
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no PostgreSQL or no Redis on this machine")


@pytest.fixture
def database(server: None) -> Iterator[str]:
    name = f"mews_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(ADMIN, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql:///{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def rows_of(database: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_dagster_keeps_its_events_in_postgresql(
    tmp_path: Path, database: str, ports: stack.Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    wired = stack.read_env_files(stack.WIRING["team"])["MEWS_DAGSTER_DB"]
    monkeypatch.setenv("MEWS_DAGSTER_DB", wired.replace("///dagster", database.removeprefix("postgresql:")))
    env = stack.environment(tmp_path, profile="team", ports=ports)
    stack.create_tables(env)
    (tmp_path / "materialize.py").write_text(MATERIALIZE)

    done = subprocess.run(
        [sys.executable, tmp_path / "materialize.py"], env=env, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-2000:]
    query = "SELECT asset_key FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
    assert rows_of(database, query) == [('["row"]',)]
    assert not list(tmp_path.glob("dagster/**/*.db"))


def answer(url: str, login: tuple[str, str] | None, body: dict[str, str] | None = None) -> tuple[int, object]:
    headers = {"content-type": "application/json"}
    if login:
        headers["authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    data = json.dumps(body).encode() if body else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def test_mlflow_asks_for_a_login_and_keeps_runs_and_users_in_postgresql(
    tmp_path: Path, database: str, ports: stack.Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = (stack.INFRA / "team" / "mlflow_auth.ini").read_text().replace("postgresql:///mlflow", database)
    (tmp_path / "auth.ini").write_text(auth)
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", database)
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "a-long-test-password")
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "a-long-test-key")
    table = {process.name: process for process in stack.processes(tmp_path, profile="team", ports=ports)}
    url = f"http://127.0.0.1:{ports.mlflow}/api/2.0/mlflow/experiments/create"

    with supervise([table["mlflow"]], home=tmp_path) as supervisor:
        tick_until(supervisor, supervisor.is_up)
        stranger, _ = answer(url, None, {"name": "content"})
        began = time.monotonic()
        member, _ = answer(url, ("admin", "a-long-test-password"), {"name": "content"})

        assert (stranger, member) == (401, 200), f"after {time.monotonic() - began:.1f} s"
    assert ("content",) in rows_of(database, "SELECT name FROM experiments")
    assert rows_of(database, "SELECT username, is_admin FROM users") == [("admin", True)]


def test_feast_keeps_its_registry_in_postgresql_and_its_values_in_redis(tmp_path: Path, database: str) -> None:
    program = (
        "from orchestration.settings import Settings; from feature_repo.store import open_store\n"
        "settings = Settings.from_environment(); store = open_store(settings.home, **settings.feature_stores)\n"
        "print(type(store._provider.online_store).__name__, type(store.registry).__name__)\n"
        "print(len(store.list_feature_services()))"
    )
    env = {
        **os.environ,
        "MEWS_HOME": str(tmp_path),
        "MEWS_REDIS": "127.0.0.1:6379,db=9",
        "MEWS_FEAST_REGISTRY": database,
    }

    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["RedisOnlineStore", "SqlRegistry", "3"]
    assert not (tmp_path / "feast" / "registry.db").exists()
    assert rows_of(database, "SELECT count(*) FROM feature_services") == [(3,)]


def test_a_laptop_has_neither() -> None:
    assert not any(Settings.from_environment({}).feature_stores.values())
    assert Process(name="x", command=[]).link == ""
