"""What people look at says what the ledger says: the registry's page, its alias, and the release's page in Dagster."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from orchestration.approvals import Approvals
from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.stages.deployment import deployment
from orchestration.stages.mirror import registry_mirror
from serving.bundle import Bundle
from tests.orchestration.test_approval_flow import run, seal, sign, spec, trained

mlflow = pytest.importorskip("mlflow")

NAME = "payment_fraud"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its many migrations run once."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[str]:
    """A tracking server as `mews up` starts it."""
    root = tmp_path_factory.mktemp("mlflow")
    shutil.copyfile(database, root / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{root}/mlflow.db",
        "--artifacts-destination",
        str(root / "artifacts"),
    ]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture(params=["file", "server"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, database: Path) -> Settings:
    home = Settings(tmp_path / "home")
    home.home.mkdir()
    shutil.copyfile(database, home.home / "mlflow.db")
    if request.param == "server":
        home = replace(home, mlflow_uri=request.getfixturevalue("server"))
    Approvals(home).introduce({"ada": "ml", "grace": "policy"})
    return home


def client(settings: Settings) -> "mlflow.MlflowClient":
    return mlflow.MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def registered(settings: Settings, run_id: str) -> Bundle:
    """A candidate that was registered, then sealed."""
    registry = client(settings)
    if not registry.search_registered_models(f"name = '{NAME}'"):
        registry.create_registered_model(NAME)
    experiment = registry.get_experiment_by_name(NAME)
    experiment_id = experiment.experiment_id if experiment else registry.create_experiment(NAME)
    found = registry.create_run(experiment_id)
    version = registry.create_model_version(NAME, f"runs:/{found.info.run_id}/detector", found.info.run_id)
    run_dir = trained(settings, run_id, by="tom")
    (run_dir / "card.md").write_text(f"# {NAME}: passed the gate\n\n## Promises\n\n| label | promise |\n|---|---|\n")
    (run_dir / "result.json").write_text(json.dumps({"mlflow_version": str(version.version)}))
    shelf.publish(run_dir)
    return seal(settings)[0]


def look(settings: Settings, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, resources={"settings": settings}, cursor=cursor)
    found = registry_mirror()(context)
    assert isinstance(found, dg.SensorResult)
    return found


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def serve(settings: Settings, release: Bundle) -> None:
    sign(settings, release, Approvals(settings).newest_policy("fraud"))
    run(settings, deployment(spec(settings)))


def moved(settings: Settings) -> list[str]:
    return [e.body["what"] for e in Approvals(settings).ledger.entries() if e.kind == "registry_moved"]


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_a_versions_page_says_who_signed_when_and_for_whom_it_waits(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    release = registered(settings, "run-1")
    sign(settings, release, people=("ada",))

    look(settings, instance)

    found = client(settings).get_model_version(NAME, "1")
    assert found.description.startswith(f"# {NAME}: passed the gate\n\n**waiting**: waiting for policy")
    for words in (
        release.digest,
        "signed by ada as ml on 20",
        f"mews sign {release.digest[:12]}",
        "| label | promise |",
    ):
        assert words in found.description
    assert "artifacts/card.html" in found.description
    assert found.tags | {"status": "waiting", "signed_by": "ada (ml)", "waits_for": "policy"} == found.tags


def test_what_somebody_moves_by_hand_is_put_back_raised_and_kept(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    first = registered(settings, f"run-1-{settings.profile}")
    serve(settings, first)
    look(settings, instance)
    registered(settings, f"run-2-{settings.profile}")
    look(settings, instance)
    registry = client(settings)
    ours, other = first.facts["model_version"], Approvals(settings).newest_release(NAME).facts["model_version"]

    registry.set_registered_model_alias(NAME, "champion", other)
    registry.set_model_version_tag(NAME, other, "status", "approved")
    found = look(settings, instance)
    again = look(settings, instance)

    assert str(registry.get_registered_model(NAME).aliases["champion"]) == ours
    assert registry.get_model_version(NAME, other).tags["status"] == "waiting"
    assert "was moved to" in str(found.skip_reason)
    assert "tag status was changed by hand" in str(found.skip_reason)
    assert "by hand" not in str(again.skip_reason)
    assert len(moved(settings)) == 2


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_a_version_that_was_sealed_again_shows_what_is_served(settings: Settings, instance: dg.DagsterInstance) -> None:
    first = registered(settings, "run-1")
    serve(settings, first)

    second, _ = seal(settings, by="kim")
    look(settings, instance)

    assert second.facts["model_version"] == first.facts["model_version"] == "1"
    assert client(settings).get_model_version(NAME, "1").tags["release"] == first.digest
    assert str(client(settings).get_registered_model(NAME).aliases["champion"]) == "1"


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_the_alias_follows_a_revocation_without_an_alarm(settings: Settings, instance: dg.DagsterInstance) -> None:
    release = registered(settings, "run-1")
    serve(settings, release)
    look(settings, instance)
    desk = Approvals(settings)
    desk.revoke(release, desk.signer("ada"), reason="it hurts people")

    look(settings, instance)

    assert "champion" not in client(settings).get_registered_model(NAME).aliases
    assert client(settings).get_model_version(NAME, "1").tags["status"] == "revoked"
    assert moved(settings) == []


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_an_alias_that_was_taken_away_comes_back(settings: Settings, instance: dg.DagsterInstance) -> None:
    serve(settings, registered(settings, "run-1"))
    look(settings, instance)
    client(settings).delete_registered_model_alias(NAME, "champion")

    look(settings, instance)

    assert str(client(settings).get_registered_model(NAME).aliases["champion"]) == "1"
    assert len(moved(settings)) == 1


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_the_releases_page_in_dagster_follows_each_signature_once(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    release = registered(settings, "run-1")
    first = look(settings, instance)
    sign(settings, release, people=("grace",))

    second = look(settings, instance, first.cursor)
    third = look(settings, instance, second.cursor)

    [event] = second.asset_events
    assert event.asset_key == dg.AssetKey([NAME, "release"])
    text = str(event.metadata["standing"].value)
    assert "signed by grace as policy" in text
    assert f"waits for ml: `mews sign {release.digest[:12]} --as NAME`" in text
    assert third.asset_events == []


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_a_version_that_was_deleted_changes_nothing_that_is_served(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    serve(settings, registered(settings, "run-1"))
    look(settings, instance)
    client(settings).delete_registered_model(NAME)

    look(settings, instance)

    assert Approvals(settings).servable(NAME) is not None
