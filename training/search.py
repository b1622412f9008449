"""`python -m training.search FOLDER`: tries variants of a detector's fit side by side and says which validates best.

The folder holds `detector.json` and `training_set.parquet`, as a run folder does. Each trial trains in a run folder of
its own below `trials/` and is stopped as soon as it lies below the median of the others at the same epoch, but for the
first ones and the fit as stated. What was tried lies in `study.jsonl`; the same command goes on where a killed search
stopped. The test split is never looked at.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import optuna
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes
from matplotlib.figure import Figure
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from training import launch, near_duplicates
from training.attended import alone
from training.detector import DetectorSpec
from training.fit_config import WATCHED, FitConfig
from training.reports import CURVES, new_lines
from training.search_space import Range, Search

WARM_UP_TRIALS = 4  # that are never stopped: the first to be compared with
STUDY, RESULT, PLOTS = "study.jsonl", "search.json", ("history", "importances")
_SHARED = ("training_set.parquet", near_duplicates.STORED)


class TrialFailed(RuntimeError):
    """One variant could not be trained; the others go on."""


def main() -> None:
    """Search in the folder named on the command line; under Dagster the result is metadata of its asset."""
    folder = Path(sys.argv[1])
    with alone(folder):
        _search(folder)


def _search(folder: Path) -> None:
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        print(search(folder, report=lambda line: print(line, flush=True)))  # noqa: T201
        return
    with open_dagster_pipes() as pipes:
        pipes.log.info(search(folder, report=pipes.log.info))
        pipes.report_asset_materialization()


def search(folder: Path, *, report: Callable[[str], None]) -> str:
    """Try what is left to try, write `search.json` and plots, and return the fit that validates best as one line."""
    spec = DetectorSpec.model_validate_json((folder / "detector.json").read_text(encoding="utf-8"))
    near_duplicates.find(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=spec.name,
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=spec.fit.seed, n_startup_trials=2 * WARM_UP_TRIALS),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP_TRIALS, n_warmup_steps=1),
    )
    _take_up(study, spec)
    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    runner = _Runner(folder, spec, report)
    with runner.stopped_by_a_signal():
        study.optimize(
            runner.run,
            n_trials=max(0, spec.search.num_trials - done),
            n_jobs=spec.search.num_parallel,
            catch=(TrialFailed,),
        )
    return write_result(folder, study, spec)


def _take_up(study: optuna.Study, spec: DetectorSpec) -> None:
    """Ask for the fit as it is, once, and again for what a killed search was about."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
    if not study.get_trials(deepcopy=False):
        stated = spec.fit.model_dump()
        study.enqueue_trial({name: stated[name] for name in spec.search.space}, user_attrs={"is_stated": True})


@dataclass
class _Runner:
    """Trains one variant per call, each in processes of its own."""

    folder: Path
    spec: DetectorSpec
    report: Callable[[str], None]
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    is_stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, trial: Trial) -> float:
        """The watched metric on validation of the weights that are kept; raises TrialPruned and TrialFailed."""
        tried = suggest(trial, self.spec.search)
        try:
            fit = FitConfig.model_validate({**self.spec.fit.model_dump(), **tried})
        except ValueError as error:
            raise TrialFailed(f"trial {trial.number} is no fit: {tried}") from error
        run_dir = self._lay_out(trial.number, fit)
        may_be_stopped = trial.number >= WARM_UP_TRIALS and "is_stated" not in trial.user_attrs
        kept, lines = 0.0, new_lines(run_dir / CURVES)
        with self._training(trial.number, run_dir) as process:
            is_running = True
            while is_running and not self.is_stopped.is_set():
                is_running = launch.is_running(process)
                for line in map(json.loads, next(lines)):
                    if line["name"] == WATCHED:
                        kept = max(kept, line["value"]) if fit.patience else line["value"]
                        trial.report(line["value"], step=line["epoch"])
                if is_running and may_be_stopped and trial.should_prune():
                    self.report(f"trial {trial.number} is stopped at {kept:.4f}: {trial.params}")
                    raise optuna.TrialPruned
        if self.is_stopped.is_set():
            raise SystemExit("the search was stopped; the same command goes on with it")
        if process.returncode:
            raise TrialFailed(f"trial {trial.number} ended with status {process.returncode}; see {run_dir / 'log.txt'}")
        self.report(f"trial {trial.number} validates with {kept:.4f}: {trial.params}")
        return kept

    def _lay_out(self, number: int, fit: FitConfig) -> Path:
        run_dir = self.folder / "trials" / f"{number:04d}"
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.mkdir(parents=True)
        spec = self.spec.model_copy(update={"fit": fit})
        (run_dir / "detector.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
        for name in _SHARED:
            if (self.folder / name).exists():
                (run_dir / name).hardlink_to(self.folder / name)
        return run_dir

    @contextmanager
    def _training(self, number: int, run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A fit in a process group of its own, which ends with the block."""
        with (run_dir / "log.txt").open("wb") as log, launch.start(run_dir, "--curves-only", log=log) as process:
            self.running[number] = process
            try:
                yield process
            finally:
                _end(self.running.pop(number))
                shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)

    @contextmanager
    def stopped_by_a_signal(self) -> Iterator[None]:
        """SIGTERM ends the trials that run; what they were about is tried again by the next search."""

        def stop(*_: object) -> None:
            self.is_stopped.set()
            for process in list(self.running.values()):
                _end(process)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def suggest(trial: Trial, search: Search) -> dict[str, Any]:
    """One value per setting of the space, in the type that the fit has for it."""
    values: dict[str, Any] = {}
    for name, tried in search.space.items():
        if not isinstance(tried, Range):
            values[name] = trial.suggest_categorical(name, tried)
        elif is_whole(name):
            values[name] = trial.suggest_int(name, int(tried.low), int(tried.high), log=tried.is_log)
        else:
            values[name] = trial.suggest_float(name, tried.low, tried.high, log=tried.is_log)
    return values


def is_whole(name: str) -> bool:
    """Whether a setting of the fit is an integer, or one that may be absent."""
    annotation = FitConfig.model_fields[name].annotation
    return int in (annotation, *get_args(annotation))


def write_result(folder: Path, study: optuna.Study, spec: DetectorSpec) -> str:
    """`search.json`: the best variant, the stated one, and every trial; and two plots. Returns the best as one line."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and t.state != TrialState.FAIL]
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        raise TrialFailed(f"no variant of {spec.name} could be trained; the logs are in {folder / 'trials'}")
    stated = next((trial.value for trial in trials if trial.user_attrs.get("is_stated")), None)
    best = study.best_trial
    result = {
        "metric": WATCHED,
        "stated": stated,
        "best": _told(best),
        "trials": [_told(trial) for trial in trials],
    }
    (folder / RESULT).write_text(json.dumps(result, indent=1), encoding="utf-8")
    _draw(folder, study)
    as_stated = "as stated it failed" if stated is None else f"{stated:.4f} as stated"
    return f"{spec.name}: {best.value:.4f} on validation ({as_stated}) with {json.dumps(best.params)}"


def _told(trial: FrozenTrial) -> dict[str, object]:
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "params": trial.params,
        "curve": curve,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
    }


def _draw(folder: Path, study: optuna.Study) -> None:
    """How the best grew from trial to trial, and which settings mattered."""
    from optuna.visualization import matplotlib as plots

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        drawn = [plots.plot_optimization_history(study)]
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(completed) > 1 and len({trial.value for trial in completed}) > 1:
            drawn.append(plots.plot_param_importances(study))
    for name, axes in zip(PLOTS, drawn, strict=False):
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
