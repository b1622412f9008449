"""Closes the runs whose process died without a word: they would stay `started` for ever and keep their pool's slot."""

import socket
from collections.abc import Callable

import dagster as dg
import psutil

PROCESS = "process"  # the tag of a run that the process which asked for it carries out itself
AT_WORK = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
WHY = "Interrupted: the process that ran it was killed. Nothing it had finished is lost; run it again."
_CLOCK_S = 60.0  # by so much a start time may move when the clock is set; no number is given out again so soon


def this_process() -> str:
    """The value of the tag: the machine, the number, and when it started, for numbers are given out again."""
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time()}"


def is_dead(run: dg.DagsterRun) -> bool:
    """Whether the process in a run's tag has ended; of other machines' processes, and without a tag, nobody knows."""
    host, _, rest = run.tags.get(PROCESS, "").partition(" ")
    if host != socket.gethostname():
        return False
    number, started = rest.split()
    try:
        process = psutil.Process(int(number))
        is_same = abs(process.create_time() - float(started)) < _CLOCK_S
        return not is_same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def close_runs(instance: dg.DagsterInstance, is_interrupted: Callable[[dg.DagsterRun], bool]) -> list[str]:
    """Report them failed, or canceled if somebody had asked for that, free their slots, and return their ids."""
    runs = [run for run in instance.get_runs(dg.RunsFilter(statuses=AT_WORK)) if is_interrupted(run)]
    for run in runs:
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, WHY)
        else:
            instance.report_run_failed(run, WHY)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in runs]
