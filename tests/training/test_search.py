import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from tests.training.conftest import behaviour_spec, payments, write_run
from training import launch
from training.attended import alone
from training.detector import DetectorSpec
from training.search import STUDY, _Runner, is_whole, search
from training.search_space import Range, Search

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SPACE = {"learning_rate": [2e-3, 1e-7], "hidden_size": Range(low=8, high=32, is_log=True)}


def folder_of(path: Path, **asked: int) -> Path:
    spec = behaviour_spec(max_epochs=3, num_starts=1)
    chosen = Search.model_validate({"num_trials": 7, "space": {**SPACE}, **asked})
    return write_run(path, spec.model_copy(update={"search": chosen}), rows=payments())


def test_a_search_tries_the_stated_fit_first_stops_what_falls_behind_and_draws_what_it_found(tmp_path: Path) -> None:
    folder, said = folder_of(tmp_path / "study"), list[str]()

    line = search(folder, report=said.append)

    result = json.loads((folder / "search.json").read_text())
    first, *others = sorted(result["trials"], key=lambda trial: trial["number"])
    assert len(others) == 6
    assert (first["params"], first["value"]) == ({"learning_rate": 2e-3, "hidden_size": 32}, result["stated"])
    assert result["best"]["value"] == max(trial["value"] for trial in result["trials"] if trial["state"] == "complete")
    assert result["best"]["params"]["learning_rate"] == 2e-3
    assert f"{result['best']['value']:.4f} on validation" in line
    assert len(said) == 7
    assert {path.name for path in folder.glob("*.png")} == {"history.png", "importances.png"}
    assert not list(folder.glob("trials/*/predictions.parquet"))
    spec = DetectorSpec.model_validate_json((folder / "trials" / "0003" / "detector.json").read_bytes())
    assert 8 <= spec.fit.hidden_size <= 32


def test_what_falls_behind_the_median_is_stopped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "study", num_trials=12, num_parallel=1)

    search(folder, report=lambda _: None)

    states = [trial["state"] for trial in json.loads((folder / "search.json").read_text())["trials"]]
    assert "pruned" in states
    assert states[:4] == ["complete"] * 4


def test_a_killed_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "study")
    command = [sys.executable, "-m", "training.search", str(folder)]
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        wait_for_a_trial(folder, process)
        os.killpg(process.pid, how) if how == signal.SIGKILL else process.terminate()
        process.communicate()
    done = finished(folder)

    search(folder, report=lambda _: None)

    trials = json.loads((folder / "search.json").read_text())["trials"]
    assert len(trials) == 7
    assert done <= {trial["number"] for trial in trials}
    assert sum(trial["params"] == {"learning_rate": 2e-3, "hidden_size": 32} for trial in trials) >= 1


@pytest.fixture
def acted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Instead of a fit, act out a curve for the stated learning rate and one for all others, by the second."""

    def act(*, stated: list[float], others: list[float], stated_takes_s: float = 0.0) -> None:
        path = tmp_path / "fit.py"
        path.write_text(f"""
import json, sys, time
from pathlib import Path
run_dir = Path(sys.argv[1])
is_stated = json.loads((run_dir / "detector.json").read_text())["fit"]["learning_rate"] == 2e-3
for epoch, value in enumerate({stated} if is_stated else {others}):
    with (run_dir / "metrics.jsonl").open("a") as file:
        line = {{"epoch": epoch, "step": epoch, "name": "validation_average_precision", "value": value}}
        file.write(json.dumps(line) + chr(10))
    time.sleep({stated_takes_s} if is_stated else 0)
""")
        monkeypatch.setattr(launch, "command", lambda run_dir: [sys.executable, str(path), str(run_dir)])

    return act


def outline(path: Path, space: dict[str, object], *, patience: int | None = 3, **asked: int) -> Path:
    """The folder of a search over `space` alone."""
    search = Search.model_validate({"num_parallel": 1, "space": space, **asked})
    spec = behaviour_spec(learning_rate=2e-3, patience=patience).model_copy(update={"search": search})
    return write_run(path, spec, rows=payments(200))


@pytest.mark.parametrize(("patience", "best"), [(3, 2e-2), (None, 2e-3)])
def test_a_variant_is_as_good_as_the_weights_that_its_fit_keeps(
    tmp_path: Path, acted: Callable[..., None], patience: int | None, best: float
) -> None:
    acted(stated=[0.6, 0.7], others=[0.9, 0.3])
    folder = outline(tmp_path / "study", {"learning_rate": [2e-3, 2e-2]}, patience=patience, num_trials=4)

    search(folder, report=lambda _: None)

    result = json.loads((folder / "search.json").read_text())
    assert {trial["params"]["learning_rate"] for trial in result["trials"]} == {2e-3, 2e-2}
    assert result["best"]["params"]["learning_rate"] == best


def test_the_fit_as_stated_is_never_stopped(tmp_path: Path, acted: Callable[..., None]) -> None:
    acted(stated=[0.4, 0.4, 0.5, 0.7, 0.9], others=[0.6, 0.6], stated_takes_s=1.5)
    space = {"learning_rate": {"low": 1e-3, "high": 3e-3}}
    folder = outline(tmp_path / "study", space, num_trials=7, num_parallel=2)

    search(folder, report=lambda _: None)

    result = json.loads((folder / "search.json").read_text())
    assert result["stated"] == result["best"]["value"] == 0.9


def test_a_trial_that_begins_while_the_search_is_stopped_ends_at_once(
    tmp_path: Path, acted: Callable[..., None]
) -> None:
    acted(stated=[0.5], others=[0.5], stated_takes_s=60)
    folder = outline(tmp_path / "study", {"learning_rate": [2e-3]})
    spec = DetectorSpec.model_validate_json((folder / "detector.json").read_bytes())
    runner, began = _Runner(folder, spec, print), time.monotonic()

    runner.is_stopped.set()
    with pytest.raises(SystemExit, match="the same command goes on with it"):
        optuna.create_study().optimize(runner.run, n_trials=1)

    assert time.monotonic() - began < 30


def test_a_second_search_of_a_folder_is_refused_and_leaves_the_first_alone(tmp_path: Path) -> None:
    folder = outline(tmp_path / "study", {"learning_rate": [2e-3]})

    with alone(folder):
        command = [sys.executable, "-m", "training.search", str(folder)]
        second = subprocess.run(command, check=False, capture_output=True, text=True)

    assert second.returncode == 1
    assert second.stderr.endswith("is being trained by another process; wait for it, or end it\n")
    assert not (folder / STUDY).exists()


def wait_for_a_trial(folder: Path, process: subprocess.Popen[bytes]) -> None:
    before, deadline = len(finished(folder)), time.monotonic() + 60
    while len(finished(folder)) <= before:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(folder: Path) -> set[int]:
    """The trials that have an end in the journal."""
    lines = (folder / STUDY).read_text().splitlines() if (folder / STUDY).exists() else []
    told = [json.loads(line) for line in lines if '"state"' in line]
    return {entry["trial_id"] for entry in told if entry.get("state") in (1, 2) and "trial_id" in entry}


def test_a_space_that_makes_no_fit_is_refused_where_it_enters() -> None:
    spec = behaviour_spec().model_dump()
    assert is_whole("hidden_size")
    assert is_whole("negatives_per_positive")
    assert not is_whole("dropout")
    with pytest.raises(ValueError, match=r"search.space names 'depth'; it must be a field of fit"):
        DetectorSpec.model_validate({**spec, "search": {"space": {"depth": [1, 2]}}})
    with pytest.raises(ValueError, match=r"fit.dropout is 1.5; it must lie in \[0, 1\)"):
        DetectorSpec.model_validate({**spec, "search": {"space": {"dropout": {"low": 0, "high": 1.5}}}})
    with pytest.raises(ValueError, match=r"search.space.hidden_size is \[1, 2\]; it must hold the fit's own 32"):
        DetectorSpec.model_validate({**spec, "search": {"space": {"hidden_size": [1, 2]}}})
    with pytest.raises(ValueError, match=r"low is 0\.0; it must be greater than 0 and less than high"):
        Range(low=0, high=1, is_log=True)
