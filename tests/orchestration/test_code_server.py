"""Runs that died with the code server are closed, and nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG

from orchestration.code_server import close_interrupted_runs


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

    closed = close_interrupted_runs(instance)

    assert closed == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert any("Interrupted" in event.message for event in instance.all_logs(run.run_id))


def test_a_run_that_was_being_canceled_ends_canceled(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.CANCELING)

    close_interrupted_runs(instance)

    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.CANCELED


def test_its_place_in_the_pool_is_free_again(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED)
    storage = instance.event_log_storage
    storage.set_concurrency_slots("training", 1)
    storage.claim_concurrency_slot("training", run.run_id, "slow")

    close_interrupted_runs(instance)

    assert storage.claim_concurrency_slot("training", "next", "slow").is_claimed


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.SUCCESS])
def test_a_run_that_waits_or_has_ended_is_left_alone(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    run = run_with(instance, status)

    assert close_interrupted_runs(instance) == []
    assert instance.get_run_by_id(run.run_id).status is status


def test_a_run_started_from_a_shell_is_left_alone(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, dg.DagsterRunStatus.STARTED, tags={})

    assert close_interrupted_runs(instance) == []
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED
