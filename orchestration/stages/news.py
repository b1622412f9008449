"""Sensors and calendars: news from outside Dagster. Each asks for runs and computes nothing else."""

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import SENSOR_NAME_TAG  # on every run that a sensor asked for

from feature_repo.tables import TABLES
from orchestration.interrupted_runs import AT_WORK, close_runs, is_dead
from orchestration.settings import Settings
from orchestration.stages import shelf
from training.detector import DetectorSpec

if TYPE_CHECKING:
    from feature_repo.lake import Lake

AGAIN_AFTER = timedelta(hours=1)
_TIMEOUT_S = 10
_WANTED = "wanted"  # the tag of a run: what it was asked for, however often
_GOES_ON = [dg.DagsterRunStatus.QUEUED, *AT_WORK]  # one that was never started is taken up by its key


def arrivals(job_name: str) -> dg.SensorDefinition:
    """A file in the inbox starts the ingestion of its day, whichever day that is."""

    @dg.sensor(
        name="arrivals",
        job_name=job_name,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A batch that arrived is validated, on its day or later.",
    )
    def sensor(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> Iterator[dg.RunRequest]:
        for day, files in sorted(_waiting(settings.lake).items()):
            yield until_it_succeeds(context.instance, day, _fingerprint(files))

    return sensor


def until_it_succeeds(instance: dg.DagsterInstance, day: date, what: str) -> dg.RunRequest:
    """Ask for one run of a day for what waits there, and for another a while after that one has failed."""
    wanted = f"{day}-{what}"
    failed = dg.RunsFilter(
        tags={_WANTED: wanted},
        statuses=[dg.DagsterRunStatus.FAILURE],
        updated_before=datetime.now(UTC) - AGAIN_AFTER,
    )
    key = f"{wanted}-{instance.get_runs_count(failed)}"
    return dg.RunRequest(run_key=key, partition_key=day.isoformat(), tags={_WANTED: wanted})


def new_labels(spec: DetectorSpec) -> dg.SensorDefinition:
    """Enough verdicts since the last training set start a new candidate; signatures still stand before deployment."""

    @dg.sensor(
        name=f"{spec.name}_new_labels",
        target=_chain(spec),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Trains {spec.name} again once {spec.retrain.min_new_labels} more of its events are labelled.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest | dg.SkipReason:
        asked_for = dg.RunsFilter(tags={SENSOR_NAME_TAG: context.sensor_name}, statuses=_GOES_ON)
        if runs := context.instance.get_runs(asked_for, limit=1):
            return dg.SkipReason(f"run {runs[0].run_id[:8]} goes on")
        try:
            manifest = shelf.latest(settings.training_sets / spec.name) / "manifest.json"
        except shelf.NothingThere as nothing:
            return dg.SkipReason(str(nothing))
        cutoff_us = json.loads(manifest.read_text(encoding="utf-8"))["cutoff_us"]
        num_new, needed = num_labelled(settings.lake, spec, after_us=cutoff_us), spec.retrain.min_new_labels
        if num_new < needed:
            return dg.SkipReason(f"{num_new} of {needed} newly labelled events")
        # A run that fails before there is a new training set is asked for again after as many events once more.
        key = f"{spec.name}-{cutoff_us}-{num_new // needed}"
        return dg.RunRequest(run_key=key, tags={"reason": f"{num_new} newly labelled events"})

    return sensor


def calendar(spec: DetectorSpec, cron: str) -> dg.ScheduleDefinition:
    """Trains a detector again at fixed times, whatever happened since."""
    return dg.ScheduleDefinition(
        name=f"{spec.name}_retrain",
        cron_schedule=cron,
        target=_chain(spec),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Trains {spec.name} again by the calendar; signatures still stand before deployment.",
    )


def killed_runs() -> dg.SensorDefinition:
    """Runs that a shell on this machine had started, as `mews run` does, and whose process was killed."""

    @dg.sensor(
        name="killed_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports them failed, so that nothing waits for the place in a pool that they held.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        closed = close_runs(context.instance, is_dead)
        return dg.SkipReason(f"closed: {', '.join(closed)}" if closed else "every run that is at work has its process")

    return sensor


def run_failure() -> dg.SensorDefinition:
    """Tell the webhook of every failed run, in one line."""

    @dg.run_failure_sensor(
        name="run_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts why a run failed to MEWS_WEBHOOK_URL, and tags the run with it.",
    )
    def sensor(context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings]) -> None:
        reason = why(context)
        context.instance.add_run_tags(context.dagster_run.run_id, {"why": reason})
        if settings.webhook_url:
            tell(settings.webhook_url, f"{context.dagster_run.job_name} failed: {reason}", context.dagster_run.run_id)

    return sensor


def why(context: dg.RunFailureSensorContext) -> str:
    """The innermost cause of the first failed step, in one line."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return f"{event.step_key}: {' '.join(error.message.split())}"[:300]
    return " ".join((context.failure_event.message or "no step failed").split())[:300]


def tell(url: str, text: str, run_id: str) -> None:
    """Post a line to a webhook; `text` is the field that chat systems show."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"MEWS_WEBHOOK_URL is {url!r}; it must start with https:// or http://")
    body = json.dumps({"text": text, "run_id": run_id}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
        pass


def num_labelled(lake: "Lake", spec: DetectorSpec, *, after_us: int) -> int:
    """How many of a detector's events have a verdict about its labels that became known after a moment."""
    with lake.connect() as connection:
        query = """
            SELECT count(DISTINCT event_id) FROM labels
            WHERE event_table = ? AND list_contains(?, label) AND known_us > ? AND split IS DISTINCT FROM 'unused'
        """
        row = connection.execute(query, [spec.events, spec.labels, after_us]).fetchone()
    assert row is not None
    return int(row[0])


def _chain(spec: DetectorSpec) -> list[dg.AssetKey]:
    """All that needs no signature."""
    return [dg.AssetKey([spec.name, stage]) for stage in ("training_set", "candidate", "release")]


def _waiting(lake: "Lake") -> dict[date, list[Path]]:
    """The days of which something lies in the inbox."""
    days = sorted({day for table in TABLES for day in lake.days("inbox", table)})
    return {day: [f for t in TABLES for f in lake.folder("inbox", t, day).glob("*.parquet")] for day in days}


def _fingerprint(files: list[Path]) -> str:
    stamps = sorted(f"{file.parent.parent.name}/{file.name} {file.stat().st_mtime_ns}" for file in files)
    return hashlib.sha256("\n".join(stamps).encode()).hexdigest()[:16]
