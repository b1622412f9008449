"""What training holds on to: the same weights on two processes and after a kill, and little time lost to either.

Two processes sum gradients in another order than one, so their weights part slowly; dropout, which draws per process,
is off where they are compared. A killed rank is one of two that torchrun trains with: its agent starts both again.
"""

import logging
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from tests.bench.harness import IS_SMALL, cost, median_ratio, report
from tests.bench.training_runs import orchestrated_vs_bare
from tests.training.conftest import behaviour_spec, payments, text_spec, texts, write_run
from tests.training.processes import last_step, ranks, relative_difference, weights
from training.detector import DetectorSpec
from training.launch import train

LIMITS = {
    "ddp_rel_weight_diff": "<= 1e-5",
    "resume_max_abs_diff": "= 0",
    "resume_time_ratio": "<= 1.5",
    "orchestrated_vs_bare": "<= 1.2",
}
NUM_ROWS = 2_000 if IS_SMALL else 40_000
EPOCHS = 8 if IS_SMALL else 20
ROUNDS = 1 if IS_SMALL else 2
KILLS = 2


def main() -> None:
    """Measure, print and keep the figures."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with TemporaryDirectory() as name:
        folder = Path(name)
        on_two = {
            "behaviour": on_two_processes(folder / "behaviour", behaviour_spec(dropout=0.0), payments(4_000)),
            "ngram": on_two_processes(folder / "ngram", text_spec(dropout=0.0), texts(4_000)),
        }
        resumed = [kill_twice(folder / f"round-{at}", np.random.default_rng()) for at in range(ROUNDS)]
        ratio, wall_s = orchestrated_vs_bare(folder / "home")
    figures = {
        "ddp_rel_weight_diff": max(on_two.values()),
        "resume_max_abs_diff": max(one["max_abs_diff"] for one in resumed),
        "resume_time_ratio": median_ratio([one["killed_s"] for one in resumed], [one["whole_s"] for one in resumed]),
        "orchestrated_vs_bare": ratio,
    }
    report("training", figures, limits=LIMITS, raw={"on_two": on_two, "resumed": resumed, "orchestrated_s": wall_s})


def on_two_processes(folder: Path, spec: DetectorSpec, rows: pa.Table) -> float:
    """The relative difference of the weights that one and two processes end with, on the same global batches."""
    two = spec.model_copy(update={"fit": spec.fit.model_copy(update={"devices": 2})})
    one_dir, two_dir = write_run(folder / "one", spec, rows=rows), write_run(folder / "two", two, rows=rows)
    for run_dir in (one_dir, two_dir):
        train(run_dir, report=ignore)
    return relative_difference(one_dir, two_dir)


def kill_twice(folder: Path, rng: np.random.Generator) -> dict[str, float]:
    """A run whose ranks are left alone and one of whose ranks one is killed, twice, both at steps drawn by chance."""
    spec = behaviour_spec(max_epochs=EPOCHS, patience=EPOCHS, hidden_size=192, devices=2)
    whole, killed = (write_run(folder / name, spec, rows=payments(NUM_ROWS)) for name in ("whole", "killed"))
    whole_s = cost(lambda: train(whole, report=ignore)).wall_s
    steps = np.sort(rng.choice(np.arange(10, last_step(whole) - 10), KILLS, replace=False)).tolist()
    killer = threading.Thread(target=kill_ranks, args=(killed, steps, rng))
    killer.start()
    killed_s = cost(lambda: train(killed, report=ignore)).wall_s
    killer.join()
    difference = float(np.abs(weights(whole) - weights(killed)).max())
    facts = {"first_kill": steps[0], "second_kill": steps[1], "num_steps": last_step(whole)}
    return {"max_abs_diff": difference, "whole_s": whole_s, "killed_s": killed_s, **facts}


def kill_ranks(run_dir: Path, steps: list[int], rng: np.random.Generator) -> None:
    """Kill one of the ranks of a run once it has passed each of some steps."""
    for step in steps:
        while last_step(run_dir) < step:
            time.sleep(0.02)
        rng.choice(np.array(ranks(run_dir), dtype=object)).kill()


def ignore(_: str) -> None:
    """Curves are in the run folder."""


if __name__ == "__main__":
    main()
