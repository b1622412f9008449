"""Starts the server that holds the definitions and runs them, after closing the runs that died with the one before it.

Every run that the daemon launches is a descendant of this server: a supervisor or a container ends both together. Such
a run would stay `started` for ever and keep its pool's slot. Runs started elsewhere, as by `mews run`, are left alone.
"""

import os
import sys

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG  # on every run that a daemon launched, and on no other

LAUNCHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
WHY = "Interrupted: the process that ran it was killed. Nothing it had finished is lost; run it again."


def close_interrupted_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report them failed, or canceled if somebody had asked for that, free their slots, and return their ids."""
    runs = [run for run in instance.get_runs(dg.RunsFilter(statuses=LAUNCHED)) if GRPC_INFO_TAG in run.tags]
    for run in runs:
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, WHY)
        else:
            instance.report_run_failed(run, WHY)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in runs]


def main() -> None:
    """Become Dagster's own server, which takes the same arguments."""
    with dg.DagsterInstance.get() as instance:
        close_interrupted_runs(instance)
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "api", "grpc", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
