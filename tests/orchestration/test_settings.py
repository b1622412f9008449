"""What the environment says of a home, and what is left to its defaults."""

import pytest
from typer.testing import CliRunner

from orchestration import stack
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
