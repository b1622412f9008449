"""Runs assets headless, in this process, on the instance that the Dagster page shows."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from shutil import copyfile
from typing import get_args

import dagster as dg

from orchestration.approvals import who
from orchestration.detectors import read_detectors
from orchestration.interrupted_runs import PROCESS, close_runs, is_dead, this_process
from orchestration.settings import Profile, Settings

STAGES = ("training_set", "candidate", "release", "deployment")
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class RunResult:
    """How a run ended; `reason` says why in one line, and is empty for a success."""

    run_id: str
    is_success: bool
    reason: str
    duration_s: float

    @property
    def line(self) -> str:
        """The result for a person."""
        verdict = "succeeded" if self.is_success else f"failed: {self.reason}"
        return f"run {self.run_id[:8]} {verdict} ({self.duration_s:.1f} s)"


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The instance below `settings.home`, made on first use; raises ValueError for the home of another profile."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    config = settings.dagster_home / "dagster.yaml"
    if not config.exists():
        copyfile(settings.dagster_yaml, config)
    for other in get_args(Profile):
        theirs = replace(settings, profile=other).dagster_yaml
        if other != settings.profile and config.read_bytes() == theirs.read_bytes():
            raise ValueError(f"MEWS_PROFILE is {settings.profile!r}; {config} was made for {other!r}")
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        yield instance


def materialize(
    settings: Settings,
    keys: Sequence[str],
    *,
    first: date | None = None,
    last: date | None = None,
    tags: dict[str, str] | None = None,
    is_shown: bool = False,
) -> RunResult:
    """Materialize assets (`lake/payments`, `content/candidate`) and their checks in one run; days from first to last.

    Assets with days and assets without cannot share a run. A refused batch or a failed gate is an answer, not an
    exception. Where the run `is_shown`, the terminal shows its stages; the event log has it all. Runs whose process was
    killed are closed first, for they hold what this one needs.
    """
    tags = {**(tags or {}), PROCESS: this_process()}
    if first is not None:
        tags |= {_RANGE_START: first.isoformat(), _RANGE_END: (last or first).isoformat()}
    job, started = _all_assets(settings), time.monotonic()
    with open_instance(settings) as instance, _hangup_interrupts():
        close_runs(instance, is_dead)
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey.from_user_string(key) for key in keys],
            tags=tags,
            run_config={"loggers": {"terminal": {"config": {"is_shown": is_shown}}}},
            raise_on_error=False,
        )
    return RunResult(result.run_id, result.success, _reason(result.all_events), time.monotonic() - started)


def run_detector(
    settings: Settings,
    detector: str,
    *,
    until: str = "release",
    stages: Sequence[str] = (),
    is_shown: bool = False,
) -> RunResult:
    """Run a detector's chain from its training set to the stage `until`, or just the stages named."""
    if detector not in (known := read_detectors(settings.defs)):
        raise ValueError(f"detector is {detector!r}; it must be one of {', '.join(known)}")
    if until not in STAGES:
        raise ValueError(f"until is {until!r}; it must be one of {', '.join(STAGES)}")
    chosen = stages or STAGES[: STAGES.index(until) + 1]
    tags = {"started_by": who()}
    return materialize(settings, [f"{detector}/{stage}" for stage in chosen], tags=tags, is_shown=is_shown)


def failure_since(settings: Settings, moment: datetime) -> str | None:
    """Why a run that started after a moment failed, in one line; None while none has."""
    with open_instance(settings) as instance:
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=moment)
        for run in instance.get_runs(failed, limit=1):
            events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
            return f"run {run.run_id[:8]} failed: {_reason(events) or 'see its page'}"
    return None


@contextmanager
def _hangup_interrupts() -> Iterator[None]:
    """The end of the terminal interrupts a run as Ctrl-C does, unless `nohup` or the like keeps it from the process."""
    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@cache
def _all_assets(settings: Settings) -> dg.JobDefinition:
    """The job of everything, loaded once for each environment."""
    from orchestration.definitions import defs

    if Settings.from_environment() != settings:
        raise ValueError(f"home is {settings.home}, but MEWS_HOME and its like say {Settings.from_environment().home}")
    return defs().resolve_implicit_global_asset_job_def()


def _reason(events: Sequence[dg.DagsterEvent]) -> str:
    """What the failed checks and, where there is none, the failed steps said."""
    checks = [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    refused = [f"{c.asset_key.to_user_string()}: {c.description or c.check_name}" for c in checks if not c.passed]
    steps = [f"{e.step_key}: {_cause(e)}" for e in events if e.is_step_failure]
    return "; ".join(refused or steps)


def _cause(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return " ".join(error.message.split()) if error is not None else "no message"
