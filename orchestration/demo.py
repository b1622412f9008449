"""The whole loop in one command: a simulated service, detectors, signers, live traffic, new labels, a new release."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from feature_repo.lake import DAY_US, start_us
from feature_repo.tables import EVENT_TABLES
from feature_repo.windows import VIEWS
from orchestration.demo_scene import Demo, failures, stack, wait_until_served
from orchestration.live_day import LiveDay, events_of
from orchestration.runs import materialize
from orchestration.settings import Profile, Settings
from orchestration.stack import Ports, environment
from orchestration.story import MARK, SIGNERS, StageFailed, Story, approve, require, start_anew
from orchestration.truth import Outcome, judge, to_table
from orchestration.world.scale import Scale
from orchestration.world.world import World

NUM_DAYS = 30
EVENTS_PER_SECOND = 100.0  # faster, and more events would be asked about before the one just before them counts
EVENING = 0.75  # of the day; what happens later waits for the new release
DEPLOYS_IN_S, RETRAINS_IN_S = 120, 600
NUM_CHAINS = 2  # detectors that are trained at the same time


def run_demo(
    *,
    seed: int,
    profile: Profile = "embedded",
    num_accounts: int = 4_000,
    retrained: str = "content",
    only: Sequence[str] = (),
) -> None:
    """Run the story in MEWS_HOME, from nothing, and leave everything there to look at."""
    ports = Ports.free()
    os.environ |= environment(Settings.from_environment().home, profile=profile, ports=ports)
    settings = Settings.from_environment()
    start = datetime.now(UTC).date() - timedelta(days=NUM_DAYS + 1)
    scale = Scale(seed=seed, num_accounts=num_accounts, num_days=NUM_DAYS, start=start)
    start_anew(settings)
    since = datetime.now(UTC).date()
    demo = Demo(settings, World(scale), Story(logs=settings.home / "logs"), ports, retrained, tuple(only))
    num_events = live_and_learn(demo)
    with stack(demo):
        train_and_sign(demo)
        first = await_deployments(demo)
        learn_verdicts(demo)
        day = open_the_day(demo)
        second = retrain(demo, first)
        finish_the_day(demo, day, second)
    close(demo, day, second, num_events=num_events, num_back=bring_back(demo, since))


def live_and_learn(demo: Demo) -> int:
    """Let the world live, its events pass the checks, and features be computed; returns the number of events."""
    days, settings = demo.world.days(), demo.settings
    with demo.story.stage(f"{demo.world.scale.num_accounts:,} accounts use a simulated service for {len(days)} days"):
        summary = demo.world.generate(settings.lake, before_us=start_us(demo.live_date))
        demo.desk.introduce(SIGNERS)
    with demo.story.stage("Great Expectations lets the good batches into the lake"):
        tables = [f"lake/{table}" for table in (*EVENT_TABLES, "labels")]
        require(materialize(settings, tables, first=days[0], last=days[-1]))
    with demo.story.stage("features of every moment, and the state that requests read"):
        require(materialize(settings, [f"features/{view}" for view in VIEWS], first=days[0], last=days[-1]))
        require(materialize(settings, ["online/state"], first=days[-1]))
    return summary.num_events


def train_and_sign(demo: Demo) -> None:
    """Run the detectors' chains side by side, each by its own command, and let two people sign what they sealed."""
    names, command = list(demo.detectors), [sys.executable, "-m", "orchestration.cli", "run"]
    with (
        demo.story.stage(f"training set, training, evaluation, gate, sealed release: {', '.join(names)}"),
        ThreadPoolExecutor(NUM_CHAINS) as pool,
    ):
        chains = {
            pool.submit(subprocess.run, [*command, name], capture_output=True, text=True, check=False): name
            for name in names
        }
        for chain in as_completed(chains):
            done, name = chain.result(), chains[chain]
            last = (done.stdout.splitlines() or done.stderr.splitlines() or ["it said nothing"])[-1]
            if done.returncode:
                pool.shutdown(cancel_futures=True)
                raise StageFailed(f"{name}: {last}")
            demo.story.say(f"  {name}: {last}")
    with demo.story.stage("two people sign each release and each policy"):
        for name, detector in demo.detectors.items():
            approve(demo.desk, name, detector.spec.policy)


def await_deployments(demo: Demo) -> dict[str, str]:
    """Until the sensors have deployed what was signed and the service answers with it; returns the digests."""
    signed = {name: demo.desk.newest_release(name).digest for name in demo.detectors}
    with demo.story.stage("the approvals start the deployments, and the service answers"):
        wait_until_served(demo, signed, timeout_s=DEPLOYS_IN_S)
    return signed


def learn_verdicts(demo: Demo) -> None:
    """The labels that the day brings: valid, they count at once for what requests read, and are what to train on."""
    settings, day = demo.settings, demo.live_date
    with demo.story.stage("the day's labels arrive"):
        settings.lake.write("inbox", "labels", demo.world.verdicts_on(day), day=day)
        require(materialize(settings, ["lake/labels", "online/verdicts"], first=day))


def open_the_day(demo: Demo) -> LiveDay:
    """Begin to ask the service about everything that happens on a day that nobody trained on."""
    from serving.auth import create_key

    events = events_of(demo.world, demo.live_date, demo.detectors)
    evening_us = start_us(demo.live_date) + int(EVENING * DAY_US)
    day = LiveDay(
        url=f"http://127.0.0.1:{demo.ports.service}",
        key=create_key(demo.settings.home / "api_keys.json", "demo", scopes=["decide", "read"]),
        events=events,
        per_second=EVENTS_PER_SECOND,
        num_held=sum(live.event["event_us"] >= evening_us for _, live in events),
    )
    demo.story.say(f"{demo.live_date}: {len(events):,} requests, payments and sightings begin to flow")
    day.start()
    return day


def retrain(demo: Demo, first: dict[str, str]) -> dict[str, str]:
    """The sensors answer the day's labels until people are needed; returns what is to be served then."""
    with demo.story.stage(f"automation trains {demo.retrained} again while requests flow"):
        is_sealed = lambda: demo.desk.newest_release(demo.retrained).digest != first[demo.retrained]  # noqa: E731
        demo.story.wait(is_sealed, timeout_s=RETRAINS_IN_S, watch=failures(demo))
    second = first | {demo.retrained: demo.desk.newest_release(demo.retrained).digest}
    with demo.story.stage("two people sign the new release, and it is swapped in while requests flow"):
        approve(demo.desk, demo.retrained, demo.detectors[demo.retrained].spec.policy)
        wait_until_served(demo, second, timeout_s=DEPLOYS_IN_S)
    return second


def finish_the_day(demo: Demo, day: LiveDay, second: dict[str, str]) -> None:
    """Let the rest of the day come, and require that no request failed and that the new release answered."""
    with demo.story.stage("the rest of the day"):
        day.release()
        day.finish(timeout_s=DEPLOYS_IN_S)
    if day.failures:
        raise StageFailed(f"{len(day.failures)} of {len(day.events)} requests failed; the first: {day.failures[0]}")
    if not day.num_answered_by(second[demo.retrained]):
        raise StageFailed(f"no request was answered by the new release {second[demo.retrained][:12]}")


def bring_back(demo: Demo, since: date) -> int:
    """Compact the decision log into the lake, look for drift and skew, and check the day's events like others.

    Returns the number of decisions.
    """
    settings, today = demo.settings, datetime.now(UTC).date()
    with demo.story.stage("what was decided comes back into the lake, and its events pass the checks"):
        decided = ["lake/decisions", *(f"{name}/decisions" for name in demo.detectors)]
        require(materialize(settings, decided, first=since, last=today))
        require(materialize(settings, [f"lake/{table}" for table in demo.tables], first=demo.live_date))
        require_same_features(demo)
    with settings.lake.connect() as connection:
        [(num_decisions,)] = connection.execute("SELECT count(*) FROM decisions").fetchall()
    return int(num_decisions)


def require_same_features(demo: Demo) -> None:
    """What the service knew about each event of the day is what the lake knows about its moment."""
    from feature_repo.leaks import skew_of_day

    for name, detector in demo.detectors.items():
        spec = detector.spec
        service = spec.feature_service
        if leaks := skew_of_day(demo.settings.lake, demo.live_date, events=spec.events, feature_service=service):
            raise StageFailed(f"{name}: {leaks[0]}")


def close(demo: Demo, day: LiveDay, second: dict[str, str], *, num_events: int, num_back: int) -> None:
    """Print the day against the truth, and write the same figures to demo.json."""
    outcomes = [outcome for name in demo.detectors for outcome in _judged(demo, day, name, second[name])]
    seconds = sorted(answered.seconds for answered in day.answers)
    figures = {
        "seconds": round(sum(demo.story.seconds.values()), 1),
        "events": num_events,
        "stages": demo.story.seconds,
        "live": {
            "answered": len(day.answers),
            "failed": len(day.failures),
            "answered_by_the_new_release": day.num_answered_by(second[demo.retrained]),
            "decisions_in_the_lake": num_back,
            "p50_ms": round(1000 * seconds[len(seconds) // 2], 1),
            "p99_ms": round(1000 * seconds[int(0.99 * len(seconds))], 1),
        },
        "truth": [asdict(outcome) for outcome in outcomes],
    }
    target: Path = demo.settings.home / MARK
    target.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    demo.story.console.print(to_table(outcomes))
    by_new = day.num_answered_by(second[demo.retrained])
    demo.story.say(
        f"{len(day.answers):,} requests answered, none failed, {by_new:,} by the release that was swapped in; "
        f"{num_back:,} decisions are back in the lake; "
        f"{figures['seconds']:.0f} s in all; figures in {target}"
    )
    demo.story.say(
        "next: `.venv/bin/mews up` shows all of it, `mews releases` who signed what, `mews status` what runs"
    )


def _judged(demo: Demo, day: LiveDay, name: str, digest: str) -> list[Outcome]:
    thresholds = json.loads((demo.desk.shelves.release(name, digest) / "thresholds.json").read_text(encoding="utf-8"))
    promised = [label for label, one in thresholds.items() if one["threshold"] is not None]
    return judge(name, day.answers, labels=demo.detectors[name].spec.labels, promised=promised)
