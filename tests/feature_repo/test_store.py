import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from feature_repo import store as stores
from feature_repo import windows
from feature_repo.windows import SERVICES

SERVER = "host=127.0.0.1 port=5432 user=" + os.environ.get("PGUSER", "root")


@pytest.fixture
def database() -> Iterator[str]:
    try:
        connection = psycopg.connect(f"{SERVER} dbname=postgres", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no PostgreSQL on this machine")
    name = f"mews_test_{uuid.uuid4().hex[:12]}"
    with connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_feast_apply_is_clean_in_a_fresh_home_and_keeps_every_service(tmp_path: Path) -> None:
    store = stores.open_store(tmp_path)

    # the console script's own entry: its path differs between installations
    command = [
        sys.executable,
        "-c",
        "from feast.cli.cli import cli; cli()",
        "--chdir",
        str(tmp_path / "feast"),
        "apply",
    ]
    applied = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ)

    assert applied.returncode == 0, applied.stderr[-2000:]
    store.refresh_registry()
    assert {service.name for service in store.list_feature_services()} == set(SERVICES)


def test_a_changed_service_under_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.open_store(tmp_path)
    view = windows.VIEWS["card_activity"]
    fewer = windows.replace(view, measures=view.measures[:1])
    monkeypatch.setitem(windows.VIEWS, "card_activity", fewer)

    with pytest.raises(stores.ServiceChanged, match="payment_v1"):
        stores.open_store(tmp_path)


@pytest.mark.service
def test_the_registry_can_lie_in_postgresql(tmp_path: Path, database: str) -> None:
    uri = f"postgresql+psycopg://{os.environ.get('PGUSER', 'root')}@127.0.0.1:5432/{database}"

    first = stores.open_store(tmp_path / "one", registry_uri=uri)
    second = stores.open_store(tmp_path / "two", registry_uri=uri)

    assert {service.name for service in second.list_feature_services()} == set(SERVICES)
    assert first.get_feature_service("payment_v1") == second.get_feature_service("payment_v1")
