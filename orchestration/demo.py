"""The whole loop in one command: a simulated service, three detectors, two signers, and a day none was trained on."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.table import Table

from feature_repo.tables import EVENT_TABLES
from feature_repo.windows import VIEWS
from orchestration.approvals import Approvals
from orchestration.detectors import read_detectors
from orchestration.runs import materialize, run_detector
from orchestration.settings import Settings
from orchestration.story import MARK, SIGNERS, Story, approve, require, start_anew
from orchestration.unseen_day import Outcome, judge_day
from orchestration.world.scale import Scale
from orchestration.world.world import World

NUM_DAYS = 30
LATEST_DAYS = 10  # by then even late facts have arrived; nothing may arrive in the future


def run_demo(*, seed: int) -> None:
    """Run the story in MEWS_HOME, from nothing, and leave everything there to look at."""
    settings, story = Settings.from_environment(), Story()
    start_anew(settings)
    start = datetime.now(UTC).date() - timedelta(days=NUM_DAYS + LATEST_DAYS)
    world = World(Scale(seed=seed, num_days=NUM_DAYS, start=start))
    desk, detectors = Approvals(settings), read_detectors(settings.defs)
    with story.stage(f"a simulated service of {world.scale.num_accounts:,} accounts lives for {NUM_DAYS} days"):
        summary = world.generate(settings.lake)
        desk.introduce(SIGNERS)
    _ingest(settings, world.days(), story)
    for name in detectors:
        with story.stage(f"{name}: training set, training, evaluation, gate, sealed release"):
            require(run_detector(settings, name, until="release"))
        with story.stage(f"{name}: two people sign, the release is deployed"):
            approve(desk, name, detectors[name].spec.policy)
            require(run_detector(settings, name, stages=["deployment"]))
    unseen = world.scale.date_of(NUM_DAYS)
    with story.stage(f"the deployed releases meet {unseen}, a day that nobody trained on"):
        world.generate(settings.lake, unseen, unseen)
        require(materialize(settings, [f"lake/{table}" for table in EVENT_TABLES], first=unseen))
        outcomes = [outcome for name in detectors for outcome in judge_day(settings, desk, name, unseen)]
    _close(settings, story, outcomes, num_events=summary.num_events)


def _ingest(settings: Settings, days: Sequence[date], story: Story) -> None:
    with story.stage("Great Expectations lets the good batches into the lake"):
        tables = [f"lake/{table}" for table in (*EVENT_TABLES, "labels")]
        require(materialize(settings, tables, first=days[0], last=days[-1]))
    with story.stage("features of every moment, and the state that requests read"):
        require(materialize(settings, [f"features/{view}" for view in VIEWS], first=days[0], last=days[-1]))
        require(materialize(settings, ["online/state"], first=days[-1]))


def _close(settings: Settings, story: Story, outcomes: list[Outcome], *, num_events: int) -> None:
    table = Table(title="against the world's truth, on the day after the last")
    for column in ("detector", "label", "violating", "found (95 % interval)", "benign", "flagged (95 % interval)"):
        table.add_column(column, justify="left" if column in ("detector", "label") else "right")
    for o in outcomes:
        recall, burden = _share(o.recall, o.recall_low, o.recall_high), _share(o.fpr, o.fpr_low, o.fpr_high)
        table.add_row(o.detector, o.label, f"{o.num_positive:,}", recall, f"{o.num_benign:,}", burden)
    story.console.print(table)
    seconds = round(sum(story.seconds.values()), 1)
    figures = {
        "seconds": seconds,
        "events": num_events,
        "stages": story.seconds,
        "truth": [asdict(o) for o in outcomes],
    }
    target: Path = settings.home / MARK
    target.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    story.console.print(
        f"{seconds:.0f} s in all; figures in {target}. Next: `mews up`, `mews releases`, `mews status`."
    )


def _share(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not promised" if low is None else "-"
    return f"{value:.1%} ({low:.1%} to {high:.1%})"
