"""`python -m training.launch RUN_DIR`: trains a run folder in processes of its own, evaluates it and registers it.

Under Dagster it owns Pipes; from a shell it prints. Ranks only write files: a restarted rank would open Pipes twice.
The same command goes on where a killed run stopped.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import IO

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

from training.attended import ENDS_WITH_INPUT, alone
from training.detector import DetectorSpec
from training.reports import CURVES, READING, new_lines

MAX_RESTARTS = 3  # torchrun starts all ranks again when one dies; each goes on from the last checkpoint
POLL_S = 0.5


def main() -> None:
    """Launch the run folder named on the command line."""
    run_dir = Path(sys.argv[1])
    with alone(run_dir):
        _launch(run_dir)


def _launch(run_dir: Path) -> None:
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        launch(run_dir, report=lambda line: print(line, flush=True))  # noqa: T201
        return
    with open_dagster_pipes() as pipes:
        pipes.report_asset_materialization(metadata=launch(run_dir, report=pipes.log.info))


def launch(run_dir: Path, *, report: Callable[[str], None]) -> dict[str, float | int | str]:
    """Train, evaluate, register; return the numbers of result.json. Reads MEWS_DATA."""
    import_module("training.near_duplicates").find(run_dir)
    unseen_sources = import_module("training.unseen_sources")
    unseen_sources.check(run_dir)
    with ThreadPoolExecutor(1) as pool:  # matplotlib and MLflow take seconds to import, in which the fit goes on
        later = pool.map(import_module, ("training.evaluate", "training.registry"))
        train(run_dir, report=report)
    evaluate, registry = later
    unseen_sources.train_folds(run_dir, train=lambda fold: train(fold, report=report))
    data = os.environ.get("MEWS_DATA")
    evaluate.evaluate_run(run_dir, data=Path(data) if data else None)
    registry.register(run_dir)
    return json.loads((run_dir / "result.json").read_text(encoding="utf-8"))


def train(run_dir: Path, *, report: Callable[[str], None]) -> None:
    """Run the fit in a process group of its own and report its curves live; raises SystemExit with its status."""
    files = [new_lines(run_dir / name) for name in (READING, CURVES)]
    is_over = False
    with start(run_dir) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
        try:
            while not is_over:
                is_over = not is_running(process)
                for line in chain.from_iterable(map(next, files)):
                    report(line)
        finally:
            signal.signal(signal.SIGTERM, before)
            if process.poll() is None:  # somebody interrupted this process, or reporting failed
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise SystemExit(f"training of {run_dir.name} ended with status {process.returncode}; its last words are above")
    if not (run_dir / "bundle" / "dense.onnx").exists():
        from training.export import complete

        complete(run_dir / "bundle")


def start(run_dir: Path, *options: str, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Begin the fit in a process group of its own, which ends with this process, however this one ends."""
    return subprocess.Popen(
        [*command(run_dir), *options],
        start_new_session=True,
        env=environment() | {ENDS_WITH_INPUT: "1"},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log and subprocess.STDOUT,
    )


def command(run_dir: Path) -> list[str]:
    """One process for one device; torchrun for more. Several nodes: start torchrun on each, see infra/."""
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_text(encoding="utf-8"))
    module = ["-m", "training", str(run_dir)]
    if spec.fit.devices == 1:
        return [sys.executable, *module]
    count = [f"--nproc-per-node={spec.fit.devices}", f"--max-restarts={MAX_RESTARTS}"]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", *count, *module]


def environment() -> dict[str, str]:
    """Ours, with torchrun's store kept from the ranks: a restarted one would find a dead one's address.

    See https://github.com/pytorch/pytorch/issues/135712.
    """
    return {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def is_running(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process still runs after a moment's wait."""
    try:
        process.wait(timeout=POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


if __name__ == "__main__":
    main()
