"""A mistake of whoever types a command is answered with one line, before anything runs."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration.cli import app
from orchestration.cli_mistakes import in_words

EVENTS = "id,at\nx1,2026-03-01T12:00:00\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEWS_DEBUG", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "api_keys.json").write_text("[{]")
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "bad.yaml").write_text("name: texts\ntable: nowhere\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("run nobody", "detector is 'nobody'; it must be one of "),
        ("search nobody", "detector is 'nobody'; it must be one of "),
        ("deploy nobody", "detector is 'nobody'; it must be one of "),
        ("run content --until lunch", "until is 'lunch'; it must be one of training_set, "),
        ("reject 01234567 --as ada --reason none", "digest '01234567' names 0 bundles in releases"),
        ("people show", "people.yaml"),
        ("import events.csv --mapping empty.yaml", "empty.yaml:1: the file: "),
        ("import events.csv --mapping bad.yaml", "bad.yaml:2: table: "),
        ("key ann --scope all", "scope is 'all'; it must be one of decide, bulk, read"),
        ("key ann", "api_keys.json is no list of keys: "),
    ],
)
def test_a_mistake_is_one_line_that_names_it(home: Path, command: str, told: str) -> None:
    done = CliRunner().invoke(app, command.split())

    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (home / "dagster").exists()


def test_a_name_that_is_not_found_is_more_than_the_name() -> None:
    assert in_words(KeyError("spam")) == "nothing is named 'spam'"
