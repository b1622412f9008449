"""Plays the whole loop with a detector that was just added, and says what must be true of it afterwards."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from serving.ledger import Ledger

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
    """Every event was answered and is in the lake, two releases were signed and served, the ledger's chain is whole."""
    assert figures["live"]["failed"] == 0
    assert figures["live"]["answered_by_the_new_release"] > 0
    assert figures["live"]["decisions_in_the_lake"] == figures["live"]["answered"]
    ledger = Ledger(home / "ledger" / "ledger.jsonl")
    ledger.verify()
    served = [entry.body["digest"] for entry in ledger.entries() if entry.kind == "deployed"]
    assert len(served) == len(set(served)) == 2
    recalls = {outcome["label"]: outcome["recall"] for outcome in figures["truth"]}
    assert recalls["any_violation"] > 0.3
    assert all(outcome["fpr"] < 0.1 for outcome in figures["truth"] if outcome["fpr"] is not None)
