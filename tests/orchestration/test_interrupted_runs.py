"""Runs that died with the code server or with their own process are closed, and nobody else's."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG

from orchestration import runs
from orchestration.code_server import was_launched
from orchestration.interrupted_runs import PROCESS, close_runs, is_dead, this_process
from orchestration.settings import Settings
from orchestration.stages.news import killed_runs
from tests.orchestration.conftest import FIRST


@dg.asset
def slow() -> None: ...


JOB = dg.Definitions(assets=[slow], jobs=[dg.define_asset_job("job", selection="slow")]).resolve_job_def("job")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def run_with(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, tags: dict[str, str] | None = None
) -> dg.DagsterRun:
    return instance.create_run_for_job(JOB, status=status, tags={GRPC_INFO_TAG: "{}"} if tags is None else tags)


def test_a_run_that_the_daemon_had_launched_is_failed_with_a_reason(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)

    closed = close_runs(instance, was_launched)

    assert closed == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert any("Interrupted" in event.message for event in instance.all_logs(run.run_id))


def test_a_run_that_was_being_canceled_ends_canceled(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.CANCELING)

    close_runs(instance, was_launched)

    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.CANCELED


def test_its_place_in_the_pool_is_free_again(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)
    storage = instance.event_log_storage
    storage.set_concurrency_slots("training", 1)
    storage.claim_concurrency_slot("training", run.run_id, "slow")

    close_runs(instance, was_launched)

    assert storage.claim_concurrency_slot("training", "next", "slow").is_claimed


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.SUCCESS])
def test_a_run_that_waits_or_has_ended_is_left_alone(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    run = run_with(instance, status)

    assert close_runs(instance, was_launched) == []
    assert instance.get_run_by_id(run.run_id).status is status


def test_a_run_started_from_a_shell_is_left_alone(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED, tags={})

    assert close_runs(instance, was_launched) == []
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED


@pytest.fixture
def dead_process() -> str:
    """The tag of a process that was killed while it carried out a run."""
    program = "from orchestration.interrupted_runs import this_process as me; print(me(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        tag = process.stdout.readline().strip()
        process.kill()
    return tag


def test_a_run_whose_process_was_killed_is_closed(instance: dg.DagsterInstance, dead_process: str) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED, tags={PROCESS: dead_process})

    ticked = killed_runs()(dg.build_sensor_context(instance=instance))

    assert run.run_id in ticked.skip_message
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE


def test_a_run_whose_process_lives_or_is_another_machines_is_left_alone(instance: dg.DagsterInstance) -> None:
    for tag in (this_process(), f"elsewhere {os.getpid()} 1.0"):
        run_with(instance, dg.DagsterRunStatus.STARTED, tags={PROCESS: tag})

    assert close_runs(instance, is_dead) == []


def test_a_process_number_that_was_given_out_again_is_another_process(instance: dg.DagsterInstance) -> None:
    host, number, started = this_process().split()
    run = run_with(instance, dg.DagsterRunStatus.STARTED, tags={PROCESS: f"{host} {number} {float(started) - 3600}"})

    assert close_runs(instance, is_dead) == [run.run_id]


def test_the_next_run_from_a_shell_closes_those_that_were_killed(
    tmp_path: Path, arrive: Callable[..., None], dead_process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path))
    settings = Settings.from_environment()
    with runs.open_instance(settings) as instance:
        killed = run_with(instance, dg.DagsterRunStatus.STARTED, tags={PROCESS: dead_process})
    arrive(FIRST)

    assert runs.materialize(settings, ["lake/payments"], first=FIRST).is_success

    with runs.open_instance(settings) as instance:
        assert instance.get_run_by_id(killed.run_id).status is dg.DagsterRunStatus.FAILURE


def test_the_end_of_the_terminal_interrupts_a_run_unless_it_was_started_to_outlive_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with runs._hangup_interrupts(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with runs._hangup_interrupts():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
