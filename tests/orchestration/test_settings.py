"""What the environment says of a home, and what is left to its defaults."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration import runs, stack
from orchestration.cli import app
from orchestration.settings import Settings

VARIABLES = [
    "MEWS_HOME",
    "MEWS_PROFILE",
    "MLFLOW_TRACKING_URI",
    "MEWS_REDIS",
    "MEWS_FEAST_REGISTRY",
    "MEWS_SPARK",
    "MEWS_WEBHOOK_URL",
    "MEWS_SERVICE_URL",
    "MEWS_FIRST_DAY",
    "MEWS_MEMORY_LIMIT",
]


def test_an_empty_variable_is_as_one_that_is_not_set() -> None:
    assert Settings.from_environment(dict.fromkeys(VARIABLES, "")) == Settings.from_environment({})


def test_the_command_starts_the_profile_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def up(profile: str, _ports: stack.Ports) -> int:
        started.append(profile)
        return 0

    monkeypatch.setattr(stack, "up", up)

    for said in ("team", ""):
        assert CliRunner().invoke(app, ["up"], env={"MEWS_PROFILE": said}).exit_code == 0

    assert started == ["team", "embedded"]


def test_a_command_is_wired_as_the_profile_says_and_stays_out_of_the_home_of_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Settings] = []

    def run_detector(settings: Settings, *_: object, **__: object) -> runs.RunResult:
        seen.append(settings)
        with runs.open_instance(settings):
            return runs.RunResult("run", is_success=True, reason="", duration_s=0.0)

    for name in (*VARIABLES, *stack.read_env_files(stack.WIRING["team"])):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(runs, "run_detector", run_detector)
    answers = [
        CliRunner().invoke(app, ["run", "content"], env={"MEWS_HOME": str(tmp_path), "MEWS_PROFILE": profile})
        for profile in ("", "team")
    ]

    assert [answer.exit_code for answer in answers] == [0, 1]
    assert [settings.redis for settings in seen] == ["", "127.0.0.1:6379,db=0"]
    assert "was made for 'embedded'" in answers[1].output
