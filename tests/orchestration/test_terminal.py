"""What a run says in the terminal that started it."""

import json
import os

import dagster as dg
import pytest

from orchestration.terminal import terminal


@dg.asset
def fitted(context: dg.AssetExecutionContext) -> None:
    """Reports values as a fit does, and says something."""
    context.log.info(json.dumps({"name": "passages_read", "value": 2000, "of": 155000}))
    context.log.info(json.dumps({"epoch": 1, "step": 40, "name": "train_loss", "value": 0.25}))
    context.log.info("trial 3 [of many] validates")


@dg.asset_check(asset=fitted)
def refuses() -> dg.AssetCheckResult:
    """An answer, not a failure."""
    return dg.AssetCheckResult(passed=False)


@dg.asset(deps=[fitted])
def broken() -> None:
    """Ends in an error."""
    raise ValueError("no")


def run(*, is_shown: bool) -> dg.ExecuteInProcessResult:
    """A run of all of it."""
    definitions = dg.Definitions([fitted, broken], asset_checks=[refuses], loggers={"terminal": terminal})
    config = {"loggers": {"terminal": {"config": {"is_shown": is_shown}}}}
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(run_config=config, raise_on_error=False)


def said(capfd: pytest.CaptureFixture[str], *, is_shown: bool) -> str:
    """What it says on stderr; stdout is for results."""
    run(is_shown=is_shown)
    captured = capfd.readouterr()
    assert captured.out == ""
    return captured.err


def test_each_stage_has_a_line_and_values_have_none(capfd: pytest.CaptureFixture[str]) -> None:
    lines = said(capfd, is_shown=True).splitlines()

    assert lines[0] == "  trial 3 [of many] validates"
    assert lines[1].startswith("✓ fitted ")
    assert {line.split()[1]: line[0] for line in lines[2:]} == {"fitted_refuses": "✗", "broken": "✗"}


def test_a_quiet_run_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd, is_shown=False) == ""


def test_a_run_goes_on_when_its_terminal_is_gone() -> None:
    stderr, full = os.dup(2), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    try:
        done = run(is_shown=True)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(full)

    assert [event.step_key for event in done.get_step_success_events()] == ["fitted", "fitted_refuses"]
    assert [event.step_key for event in done.all_events if event.is_step_failure] == ["broken"]
