"""A pretrained encoder tuned on a GPU: its speed, what it finds, and the code path of several GPUs on one.

`python3 -m tests.bench.bench_gpu` needs a GPU, `content_mix` below MEWS_DATA and, in MEWS_ENCODER, the folder of a
pretrained encoder where the default one is not installed. It imports what the fit path and `bench_content` import.
"""

import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import pyarrow as pa
import torch

from tests.bench import bench_content
from tests.bench.bench_content import FOLD, FOLDS, RELEASED, Figures, fold_rows, lay_out, quality, run_of, spec_of
from tests.bench.content_mix import read, sample
from tests.bench.harness import HOME, report
from tests.training.processes import relative_difference
from training.data import DetectorData
from training.fit_config import WATCHED
from training.packed import Packed
from training.pretrained import locate
from training.reader import PIECES
from training.reports import CURVES, new_lines

LIMITS = {
    "mfu": "goal 0.4",
    "mfu_large": "goal 0.4",
    "ddp_rel_weight_diff": "<= 1e-5",
    "fsdp2_rel_weight_diff": "<= 1e-5",
}
LIMITS |= {name: limit for name, limit in bench_content.LIMITS.items() if name != "cpu_rows_vs_tfidf"}
ENCODER = str(Path(locate(os.environ.get("MEWS_ENCODER", RELEASED.pretrained))).resolve())
PEAK = 989e12  # dense bf16 FLOP/s of an H100 SXM and of an H200: NVIDIA's data sheets
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
ON_GPU = {"pretrained": ENCODER, "trainable_layers": 6, "precision": "bf16-mixed", "max_epochs": 6}
TUNED, TUNED_FOLD = (config.model_copy(update=ON_GPU) for config in (RELEASED, FOLD))
ALONE = {**ON_GPU, "network": "encoder", "members": [], "benign_suites": []}
SMALL = TUNED.model_copy(update={"max_epochs": 1, "precision": "32-true"})
STRATEGIES = {"bare": {}, "ddp": {"strategy": "ddp"}, "fsdp2": {"strategy": "fsdp2"}}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
CPU_QUALITY = 0.941  # of the released fit with a frozen encoder, on validation rows, in `make bench-content`
TIMED = {"train": 30_000, "validation": 200, "calibration": 200, "test": 200}
SHORT = {"train": 4_000, "validation": 500, "calibration": 500, "test": 500}
LOOK_S = 0.01


def main() -> None:
    """Measure, print and keep the figures."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    if not torch.cuda.is_available():
        report("gpu", {"mfu": None, "why": "there is no GPU"}, limits=LIMITS)
        return
    table, figures = read(), {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    HOME.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=HOME) as name:
        folder = Path(name)
        figures |= told(speed(folder / "encoder", table, {}))
        figures |= told(fits(folder, table))
        large = {"pretrained": untrained(folder / "weights"), "trainable_layers": 24, "is_compiled": True}
        figures |= told({f"{key}_large": value for key, value in speed(folder / "large", table, large).items()})
    _, found, raw = quality(table, TUNED, TUNED_FOLD)
    report("gpu", figures | found, limits=LIMITS, raw=raw)


def told(figures: Figures) -> Figures:
    """What is known so far, as a machine may be taken away."""
    print(json.dumps(figures), flush=True)
    return figures


def speed(run_dir: Path, table: pa.Table, changes: Figures) -> Figures:
    """Tokens per second of a fit as it is, and which share of the GPU's peak the model's operations make of it.

    Counted are 6 operations per weight of a layer and token, and 12 per layer, token, hidden unit and token attended
    to: no padding, nothing computed anew (Chowdhery et al. 2022, "PaLM", appendix B). The last of three epochs counts,
    in which no checkpoint is stored.
    """
    config = RELEASED.model_copy(update={**ALONE, "max_epochs": 3, **changes})
    lay_out(run_dir, sample(table, TIMED), config)
    process = start(run_dir, "--curves-only", "--checkpoint-every", "3600")
    seen = list(stamped(process, run_dir))
    finish(run_dir, process)
    times = {one["step"]: at for at, one in seen if one["name"] == "train_loss" and one["epoch"] == 2}
    first, last = min(times), max(times)
    pieces = DetectorData(run_dir / "training_set.parquet", spec_of(config), cache=HOME).train.inputs.bags[PIECES]
    sizes = Packed.of(torch.from_numpy(pieces.ids), torch.from_numpy(pieces.bounds[:-1])).window_sizes.double()
    tokens = (last - first) * config.global_batch_size * float(sizes.sum()) / TIMED["train"]
    tokens_per_s = tokens / (times[last] - times[first])
    shape = json.loads((Path(config.pretrained) / "config.json").read_text(encoding="utf-8"))
    hidden, wide, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    weights, attended = 4 * hidden**2 + 2 * hidden * wide, float((sizes**2).sum() / sizes.sum())
    share = tokens_per_s * layers * (6 * weights + 12 * hidden * attended) / PEAK
    return {
        "tokens_per_s": tokens_per_s,
        "ms_per_step": 1e3 * (times[last] - times[first]) / (last - first),
        "mfu": share,
    }


def untrained(folder: Path) -> str:
    """An encoder of the size of BERT large with weights drawn by chance: it is as fast as one that has learned."""
    from transformers import BertConfig, BertModel

    copytree(ENCODER, folder, ignore=lambda *_: ["model.safetensors"])
    BertModel(BertConfig(**LARGE)).save_pretrained(folder)
    return str(folder)


def fits(folder: Path, table: pa.Table) -> Figures:
    """Train, side by side, what `quality` reads and the same small detector bare, with DDP and with FSDP2."""
    started, found = time.monotonic(), Figures()
    released = run_of(table, TUNED)
    processes = {released: start(released)}
    for sources in FOLDS:
        run_dir = run_of(fold_rows(table, sources), TUNED_FOLD)
        processes[run_dir] = start(run_dir)
    for name, changes in STRATEGIES.items():
        lay_out(folder / name, sample(table, SHORT), SMALL.model_copy(update=changes))
        processes[folder / name] = start(folder / name, launcher=TORCHRUN if changes else ())
    for at, point in stamped(processes[released], released):
        if point["name"] == WATCHED and point["value"] >= CPU_QUALITY:
            found.setdefault("s_to_cpu_quality", at - started)
    found["fit_s"] = time.monotonic() - started
    for run_dir, process in processes.items():
        finish(run_dir, process)
    bare, *others = (folder / name for name in STRATEGIES)
    return found | {f"{one.name}_rel_weight_diff": relative_difference(bare, one) for one in others}


def start(run_dir: Path, *options: str, launcher: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A fit in a process of its own."""
    command = [sys.executable, *launcher, "-m", "training", str(run_dir), "--cache", str(HOME / "pretrained"), *options]
    return subprocess.Popen(command)


def finish(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a fit; one that failed ends the benchmark."""
    if process.wait():
        raise SystemExit(f"the fit in {run_dir} ended with status {process.returncode}")


def stamped(process: subprocess.Popen[bytes], run_dir: Path) -> Iterator[tuple[float, Figures]]:
    """The points of a run's curves and when each was seen, until the run has ended."""
    lines, is_over = new_lines(run_dir / CURVES), False
    while not is_over:
        is_over = process.poll() is not None
        at = time.monotonic()
        yield from ((at, json.loads(line)) for line in next(lines))
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
