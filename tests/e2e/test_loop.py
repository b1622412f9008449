"""The whole loop with a detector that was just added, from raw events to a release swapped in under live traffic."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from serving.ledger import Ledger

pytestmark = pytest.mark.slow
NUM_ACCOUNTS = "1500"


def play(project: Path, environment: dict[str, str], profile: str) -> dict[str, Any]:
    """Run the demo as a user does, and return its figures."""
    command = [sys.executable, "-m", "orchestration.cli", "demo", "--profile", profile]
    options = ["--accounts", NUM_ACCOUNTS, "--retrained", "spam", "--only", "spam"]
    done = subprocess.run(
        [*command, *options], cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr == ""
    return json.loads((Path(environment["MEWS_HOME"]) / "demo.json").read_text())


def require_whole_loop(figures: dict[str, Any], home: Path) -> None:
    """Every event was answered, two releases were signed and served, and the ledger's chain is whole."""
    assert figures["live"]["failed"] == 0
    assert figures["live"]["answered_by_the_new_release"] > 0
    ledger = Ledger(home / "ledger" / "ledger.jsonl")
    ledger.verify()
    served = [entry.body["digest"] for entry in ledger.entries() if entry.kind == "deployed"]
    assert len(served) == len(set(served)) == 2
    recalls = {outcome["label"]: outcome["recall"] for outcome in figures["truth"]}
    assert recalls["any_violation"] > 0.3
    assert all(outcome["fpr"] < 0.1 for outcome in figures["truth"] if outcome["fpr"] is not None)


@pytest.mark.timeout(600)
def test_the_loop_runs_on_one_laptop_with_a_detector_that_was_just_added(
    project: Path, embedded: dict[str, str]
) -> None:
    figures = play(project, embedded, "embedded")

    require_whole_loop(figures, Path(embedded["MEWS_HOME"]))


@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_loop_runs_on_the_servers_of_a_team(project: Path, team: dict[str, str]) -> None:
    figures = play(project, team, "team")

    home = Path(team["MEWS_HOME"])
    require_whole_loop(figures, home)
    assert not [path for path in home.glob("**/*.db") if path.parent.name != "quarantine"]
    with psycopg.connect(team["MLFLOW_BACKEND_STORE_URI"], host=team["PGHOST"], user=team["PGUSER"]) as connection:
        assert connection.execute("SELECT count(*) FROM model_versions WHERE name = 'spam'").fetchall() == [(2,)]
    assert redis.Redis(db=13).dbsize() > 0
