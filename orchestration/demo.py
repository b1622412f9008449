"""The whole loop in one command: a simulated service, detectors, signers, live traffic, new labels, a new release."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.table import Table

from feature_repo.lake import DAY_US
from feature_repo.tables import EVENT_TABLES
from feature_repo.windows import VIEWS
from orchestration.approvals import Approvals
from orchestration.detectors import Detector, read_detectors
from orchestration.live_day import LiveDay
from orchestration.runs import failure_since, materialize, run_detector
from orchestration.settings import Profile, Settings
from orchestration.stack import Ports, environment, processes
from orchestration.story import MARK, SIGNERS, StageFailed, Story, approve, require, start_anew
from orchestration.supervisor import in_background
from orchestration.truth import Outcome, judge
from orchestration.world.scale import Scale
from orchestration.world.world import LiveEvent, World

NUM_DAYS = 30
EVENTS_PER_SECOND = 60.0
EVENING = 0.75  # of the day; what happens later waits for the new release
STARTS_IN_S, DEPLOYS_IN_S, RETRAINS_IN_S = 180, 120, 600
STOPS_IN_S = 5.0


@dataclass(frozen=True)
class Demo:
    """One run of the story: where it happens, and what it is about; one day's labels are enough for `retrained`."""

    settings: Settings
    world: World
    story: Story
    ports: Ports
    retrained: str
    only: tuple[str, ...] = ()

    @property
    def desk(self) -> Approvals:
        """The signers' desk."""
        return Approvals(self.settings)

    @property
    def detectors(self) -> dict[str, Detector]:
        """The detectors that take part: all, or only those that are named."""
        found = read_detectors(self.settings.defs)
        return {name: detector for name, detector in found.items() if not self.only or name in self.only}

    @property
    def live_date(self) -> date:
        """The day after the last one of the lake, which nobody trained on: yesterday."""
        return self.world.scale.date_of(self.world.scale.num_days)


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
    demo = Demo(settings, World(scale), Story(logs=settings.home / "logs"), ports, retrained, tuple(only))
    num_events = live_and_learn(demo)
    with stack(demo):
        for name, detector in demo.detectors.items():
            with demo.story.stage(f"{name}: training set, training, evaluation, gate, sealed release, two signatures"):
                require(run_detector(settings, name, until="release"))
                approve(demo.desk, name, detector.spec.policy)
        first = await_deployments(demo)
        day = open_the_day(demo)
        second = retrain(demo, first)
        finish_the_day(demo, day, second)
    close(demo, day, second, num_events=num_events)


def live_and_learn(demo: Demo) -> int:
    """Let the world live, its events pass the checks, and features be computed; returns the number of events."""
    days, settings = demo.world.days(), demo.settings
    with demo.story.stage(f"{demo.world.scale.num_accounts:,} accounts use a simulated service for {len(days)} days"):
        summary = demo.world.generate(settings.lake, before_us=time.time_ns() // 1000)
        demo.desk.introduce(SIGNERS)
    with demo.story.stage("Great Expectations lets the good batches into the lake"):
        tables = [f"lake/{table}" for table in (*EVENT_TABLES, "labels")]
        require(materialize(settings, tables, first=days[0], last=days[-1]))
    with demo.story.stage("features of every moment, and the state that requests read"):
        require(materialize(settings, [f"features/{view}" for view in VIEWS], first=days[0], last=days[-1]))
        require(materialize(settings, ["online/state"], first=days[-1]))
    return summary.num_events


@contextmanager
def stack(demo: Demo) -> Iterator[None]:
    """The service, and Dagster's daemon with its sensors; in the team profile MLflow's server as well."""
    settings, needed = demo.settings, {"service", "code", "daemon"}
    if settings.mlflow_uri:
        needed.add("mlflow")
    table = [p for p in processes(settings.home, profile=settings.profile, ports=demo.ports) if p.name in needed]
    with in_background(table, home=settings.home, grace_s=STOPS_IN_S) as supervisor:
        with demo.story.stage("the service and Dagster's daemon come up"):
            demo.story.wait(supervisor.is_up, timeout_s=STARTS_IN_S, watch=lambda: None)
        yield


def await_deployments(demo: Demo) -> dict[str, str]:
    """Until the sensors have deployed what was signed and the service answers with it; returns the digests."""
    signed = {name: demo.desk.newest_release(name).digest for name in demo.detectors}
    with demo.story.stage("the approvals start the deployments, and the service answers"):
        wait_until_served(demo, signed, timeout_s=DEPLOYS_IN_S)
    return signed


def open_the_day(demo: Demo) -> LiveDay:
    """Begin to ask the service about everything that happens on a day that nobody trained on."""
    from serving.auth import create_key

    events = list(_asked(demo))
    evening_us = time.time_ns() // 1000 - int((1 - EVENING) * DAY_US)
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
    """New labels arrive; the sensors do the rest until people are needed; returns what is to be served then."""
    with demo.story.stage(f"the day's labels arrive; automation trains {demo.retrained} again while requests flow"):
        verdicts = demo.world.verdicts_on(demo.live_date)
        demo.settings.lake.write("inbox", "labels", verdicts, day=demo.live_date)
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


def wait_until_served(demo: Demo, digests: dict[str, str], *, timeout_s: float) -> None:
    """Until the service says that each of these releases is what answers."""
    import httpx

    from serving.auth import create_key

    key = create_key(demo.settings.home / "api_keys.json", "story", scopes=["read"])
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=10) as client:

        def is_served() -> bool:
            answer = client.get(f"http://127.0.0.1:{demo.ports.service}/v1/releases").json()
            served = {one["detector"]: one["release"] for one in answer["detectors"]}
            return all(served.get(name) == digest for name, digest in digests.items())

        demo.story.wait(is_served, timeout_s=timeout_s, watch=failures(demo))


def failures(demo: Demo) -> Callable[[], str | None]:
    """What watches for runs that the daemon started and that failed."""
    since = datetime.now(UTC)
    return lambda: failure_since(demo.settings, since)


def _asked(demo: Demo) -> Iterator[tuple[str, LiveEvent]]:
    """The events of the live day, each with every detector that scores its table.

    The service answers for the last 24 hours, so the day is moved to end now, whatever the hour is.
    """
    moved_us = time.time_ns() // 1000 - demo.world.scale.start_us(demo.world.scale.num_days + 1)
    for told in demo.world.live_events(demo.live_date):
        live = replace(told, event={**told.event, "event_us": told.event["event_us"] + moved_us})
        for name, detector in demo.detectors.items():
            if detector.spec.events == live.table:
                yield name, live


def close(demo: Demo, day: LiveDay, second: dict[str, str], *, num_events: int) -> None:
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
            "p50_ms": round(1000 * seconds[len(seconds) // 2], 1),
            "p99_ms": round(1000 * seconds[int(0.99 * len(seconds))], 1),
        },
        "truth": [asdict(outcome) for outcome in outcomes],
    }
    target: Path = demo.settings.home / MARK
    target.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    demo.story.console.print(_table(outcomes))
    by_new = day.num_answered_by(second[demo.retrained])
    demo.story.say(
        f"{len(day.answers):,} requests answered, none failed, {by_new:,} by the release that was swapped in; "
        f"{figures['seconds']:.0f} s in all; figures in {target}"
    )
    demo.story.say(
        "next: `.venv/bin/mews up` shows all of it, `mews releases` who signed what, `mews status` what runs"
    )


def _judged(demo: Demo, day: LiveDay, name: str, digest: str) -> list[Outcome]:
    thresholds = json.loads((demo.desk.shelves.release(name, digest) / "thresholds.json").read_text(encoding="utf-8"))
    promised = [label for label, one in thresholds.items() if one["threshold"] is not None]
    return judge(name, day.answers, labels=demo.detectors[name].spec.labels, promised=promised)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="what the service answered, against the world's truth")
    for column in ("detector", "label", "violating", "found (95 % interval)", "benign", "flagged (95 % interval)"):
        table.add_column(column, justify="left" if column in ("detector", "label") else "right")
    for o in outcomes:
        recall, burden = _share(o.recall, o.recall_low, o.recall_high), _share(o.fpr, o.fpr_low, o.fpr_high)
        table.add_row(o.detector, o.label, f"{o.num_positive:,}", recall, f"{o.num_benign:,}", burden)
    return table


def _share(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not promised" if low is None else "-"
    return f"{value:.1%} ({low:.1%} to {high:.1%})"
