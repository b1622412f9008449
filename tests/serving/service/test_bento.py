import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import bentoml
import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from serving.bento import SEALED, adopt, build, pinned
from serving.bundle import Bundle, BundleAltered
from serving.parts import Parts
from tests.serving.service.conftest import Team
from tests.serving.service.served import served
from tests.serving.service.test_service import SPAM, decide

NOWHERE = "http://127.0.0.1:9"  # a proxy that does not answer
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of BentoML 1.4, while it builds


def test_a_bento_holds_its_release_and_serves_it_where_the_ledger_allows(
    client: TestClient, parts: Parts, team: Team, first: Bundle, policy: Bundle
) -> None:
    built = build(first, policy, root=Path.cwd())
    try:
        content = Path(built.path) / "src"
        first.path.rename(team.home / "taken away")

        adopt(content / SEALED, team.home)
        parts.tick()

        assert built.info.labels["release"] == first.digest
        assert decide(client).json()["decisions"][0]["release"] == first.digest
        assert (content / "serving" / "service.py").exists()
        assert not (content / "orchestration").exists()
    finally:
        bentoml.bentos.delete(built.tag)


def test_an_altered_release_gets_no_bento(team: Team, first: Bundle, policy: Bundle) -> None:
    weights = first.path / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")

    with pytest.raises(BundleAltered):
        build(first, policy, root=Path.cwd())


def test_a_bento_needs_what_the_lock_pins_and_no_torch_or_dagster() -> None:
    names = {line.partition("==")[0] for line in pinned(Path.cwd())}

    assert {"bentoml", "msgspec", "onnxruntime", "redis[hiredis]", "starlette", "tokenizers"} <= names
    assert not names & {"torch", "dagster", "lightning", "great-expectations", "transformers"}


@pytest.mark.slow
def test_the_command_builds_a_bento_that_serves_from_its_own_folder_where_nothing_else_of_ours_is(
    team: Team, first: Bundle, policy: Bundle, key: str, tmp_path: Path
) -> None:
    offline = {"BENTOML_HOME": str(tmp_path / "bentos"), "MEWS_HOME": str(team.home), "HTTPS_PROXY": NOWHERE}
    command = [sys.executable, "-m", "orchestration.cli", "bento", "content"]
    built = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=True)
    path = Path(built.stdout.split(" in ")[-1].strip())

    pod = tmp_path / "pod"  # what a pod mounts: who signed what, and who may ask; the release comes with the Bento
    shutil.copytree(team.home / "ledger", pod / "ledger")
    for name in ("people.yaml", "api_keys.json"):
        shutil.copy(team.home / name, pod)
    python = without_our_code(tmp_path / "venv")
    with served(pod, target=str(path), python=python, cwd=pod, env={"PYTHONPATH": "", **offline}) as server:
        asked = {"detector": "content", "event": {"text": SPAM}}
        answer = httpx.post(f"{server.url}/v1/decisions", json=asked, headers={"authorization": f"Bearer {key}"})
        workers = [Path(child.cwd()) for child in psutil.Process(server.pid).children(recursive=True)]
        pushing = child_of(server.pid, "serving.pushing")
        with pytest.raises(psutil.TimeoutExpired):  # it finds its code in the Bento
            pushing.wait(2)

    [decision] = answer.json()["decisions"]
    assert (decision["release"], decision["action"]) == (first.digest, "block")
    assert path / "src" in workers
    assert path.name == first.digest[:16]


def child_of(pid: int, module: str) -> psutil.Process:
    """The process of a service that runs a module; it may be about to start."""
    for _ in range(100):
        for child in psutil.Process(pid).children(recursive=True):
            if module in child.cmdline():
                return child
        time.sleep(0.1)
    raise AssertionError(f"no process runs {module}")


def without_our_code(folder: Path) -> str:
    """An interpreter with every package of this one, but without the checkout that is installed among them."""
    venv.create(folder)
    python = folder / "bin" / "python"
    place = next((folder / "lib").glob("python*")) / "site-packages" / "packages.pth"
    place.write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")  # whose own .pth files do not count
    ours = [python, "-I", "-c", "import bentoml; import serving"]
    found = subprocess.run(ours, cwd=folder, capture_output=True, text=True, check=False)
    assert "No module named 'serving'" in found.stderr
    return str(python)
