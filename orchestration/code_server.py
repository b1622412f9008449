"""Starts the server that holds the definitions and runs them, after closing the runs that died with the one before it.

Every run that the daemon launches is a descendant of this server: a supervisor or a container ends both together. Runs
started elsewhere, as by `mews run`, are left alone while they live.
"""

import os
import sys

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG  # on every run that a daemon launched, and on no other

from orchestration.interrupted_runs import close_runs, is_dead


def was_launched(run: dg.DagsterRun) -> bool:
    """Whether the daemon launched the run."""
    return GRPC_INFO_TAG in run.tags


def main() -> None:
    """Become Dagster's own server, which takes the same arguments."""
    with dg.DagsterInstance.get() as instance:
        close_runs(instance, lambda run: was_launched(run) or is_dead(run))
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "api", "grpc", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
