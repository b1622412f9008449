"""The whole loop with a detector that was just added, on one laptop, and the pages on which people follow it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.stack import Ports
from tests.browser import Browser
from tests.e2e.loop import play, require_whole_loop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
UP_S = 120
SEAL = """
from orchestration.runs import materialize
from orchestration.settings import Settings
result = materialize(Settings.from_environment(), ["spam/release"], tags={"started_by": "the night shift"})
assert result.is_success, result.line
"""


@pytest.fixture(scope="module")
def played(project: Path, embedded: dict[str, str]) -> dict[str, Any]:
    return play(project, embedded, "embedded")


@pytest.fixture
def ports(project: Path, embedded: dict[str, str], played: dict[str, Any]) -> Iterator[Ports]:
    """Where `mews up` shows the home, in which one more release waits for people."""
    ports = Ports.free()
    env = {**embedded, "MEWS_SERVICE_URL": f"http://localhost:{ports.service}"}
    subprocess.run([sys.executable, "-c", SEAL], cwd=project, env=env, check=True, capture_output=True)
    command = [sys.executable, "-m", "orchestration.cli", "up", "--dagster-port", ports.dagster]
    command += ["--mlflow-port", ports.mlflow, "--service-port", ports.service]
    up = subprocess.Popen(
        [str(part) for part in command], cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for url in (f"http://127.0.0.1:{ports.mlflow}/health", f"http://127.0.0.1:{ports.dagster}/server_info"):
            wait_for(url)
        yield ports
    finally:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + UP_S
    while True:
        try:
            httpx.get(url).raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, f"{url} did not answer"
            time.sleep(0.5)
        else:
            return


def test_the_loop_runs_on_one_laptop(played: dict[str, Any], embedded: dict[str, str]) -> None:
    require_whole_loop(played, Path(embedded["MEWS_HOME"]))


def mews(*arguments: object, project: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestration.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=project, env=env, check=True, capture_output=True, text=True)


@pytest.mark.usefixtures("played")
def test_a_file_is_scored_with_what_is_served(embedded: dict[str, str], project: Path, tmp_path: Path) -> None:
    texts = ["you have won a prize, click here to claim your money now", "a poem about the river"]
    source, scored = tmp_path / "source.parquet", tmp_path / "scored.parquet"
    pq.write_table(pa.table({"text": texts}), source)

    done = mews("score", "spam", "--input", source, "--output", scored, project=project, env=embedded)

    assert done.stdout.startswith("2 rows scored into ")
    assert "2/2" in done.stderr
    rows = pq.read_table(scored).to_pylist()
    assert [row["text"] for row in rows] == texts
    assert rows[0]["p_fraud_spam"] > rows[1]["p_fraud_spam"]
    assert (rows[1]["flagged"], rows[1]["action"]) == ([], "allow")


@pytest.mark.usefixtures("played")
def test_a_run_says_which_stages_it_went_through(embedded: dict[str, str], project: Path) -> None:
    done = mews("run", "spam", "--until", "training_set", project=project, env=embedded)

    assert re.fullmatch(r"run [0-9a-f]{8} succeeded \(.+ s\)\n", done.stdout)
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["spam/training_set"]


def test_an_approver_finds_the_story_in_mlflow_and_the_command_in_dagster(ports: Ports, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{ports.mlflow}/#/models/spam/versions/1")
    browser.until("document.body.innerText.includes('approved')")
    version = browser.text()
    browser.open(f"http://127.0.0.1:{ports.dagster}/assets/spam/release?view=overview")
    browser.until("document.body.innerText.includes('mews sign')")
    release = browser.text()

    assert "ada as ml" in version
    assert "grace as policy" in version
    assert re.search(r"digest [0-9a-f]{64}", version)
    assert "Promises" in version
    assert "waits for" in release
    assert re.search(r"mews sign [0-9a-f]{12} --as NAME, or in the browser", release)
    links = browser.ask("[...document.links].map(link => link.href).join(' ')")
    assert re.search(rf"http://localhost:{ports.service}/admin/bundles/[0-9a-f]{{64}}", links)
