"""Trains one detector in a run folder, from its spec and training set to predictions and a bundle: read downwards.

Needs torch, lightning, numpy, pyarrow, safetensors and pydantic, so that it runs on a bare machine with accelerators.
"""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor

from training.checkpoints import EVERY_S, LastStep
from training.data import EVALUATED_ROWS, Batch, DetectorData, Examples, InOrder
from training.detector import DetectorSpec
from training.encoder import Floats
from training.fit_config import WATCHED, FitConfig
from training.module import DetectorModule
from training.networks.registry import build_network
from training.networks.text import TextNetwork
from training.progress import Progress
from training.reports import CURVES, READING, Reading
from training.weights import write_weights

Until = Literal["batch", "curves", "bundle"]
FACTS = ("event_us", "account_id", "sampling_probability", "source", "entity_seen")  # carried along for evaluation


def fit(
    run_dir: Path, *, cache: Path | None = None, until: Until = "bundle", checkpoint_every_s: float = EVERY_S
) -> None:
    """Train until done, halving the micro-batch as often as memory runs out; the global batch stays what it is.

    What is evaluated at once is halved with it. Where one row is too much, the error is raised.
    What is computed from a pretrained encoder is kept in `cache`, for other runs; without one, in the run folder.
    `until` one batch was tried, or the curves are whole, or predictions and bundle are written.
    """
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_text(encoding="utf-8"))
    cache = cache or run_dir / "cache"
    while True:
        num_micro_batches = _num_micro_batches(run_dir)
        try:
            return _fit(run_dir, spec, num_micro_batches, cache=cache, until=until, every_s=checkpoint_every_s)
        except torch.OutOfMemoryError:
            if num_micro_batches >= spec.fit.global_batch_size:
                raise  # one row at a time is too much
            _start_over(run_dir, num_micro_batches=2 * num_micro_batches)
            if _world_size() > 1:
                raise  # the other ranks wait for this one; torchrun starts all of them again


def _fit(
    run_dir: Path,
    spec: DetectorSpec,
    num_micro_batches: int,
    *,
    cache: Path,
    until: Until,
    every_s: float,
) -> None:
    L.seed_everything(spec.fit.seed, verbose=False)
    torch.set_num_threads(1)  # sums in one order on any machine; a second thread cost 4x the CPU time beside other work

    data = DetectorData(
        run_dir / "training_set.parquet",
        spec,
        cache=cache,
        world=_world_size(),
        num_micro_batches=num_micro_batches,
        report=Reading(run_dir / READING),
    )
    network = build_network(spec, data.encoder)
    if isinstance(network, TextNetwork):
        network.start_from(data.train.inputs, data.shares, data.pretrained)
    module = DetectorModule(network, spec.fit, labels=spec.labels)

    checkpoints = run_dir / "checkpoints"
    patience = spec.fit.patience
    watched = WATCHED if patience else None  # without patience the last epoch is the best
    best = ModelCheckpoint(checkpoints, "best", monitor=watched, mode="max", save_weights_only=True)
    trainer = L.Trainer(
        accelerator="auto",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=_world_size() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy=_strategy(spec.fit),
        precision=spec.fit.precision,
        max_epochs=spec.fit.max_epochs,
        fast_dev_run=until == "batch",
        accumulate_grad_batches=data.num_micro_batches,
        use_distributed_sampler=False,  # the loader already gives each rank its rows
        callbacks=[
            *([EarlyStopping(WATCHED, mode="max", patience=patience)] if patience else []),
            Progress(run_dir / CURVES),
            best,
            LastStep(checkpoints, every_s=every_s),
        ],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = checkpoints / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None)
    if until != "bundle" or not trainer.is_global_zero:
        return

    # Into a network of its own: what was trained may lie in parts on several devices.
    whole = DetectorModule(build_network(spec, data.encoder), spec.fit, labels=spec.labels)
    whole.load_state_dict(torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"])
    write_predictions(run_dir / "predictions.parquet", data, whole.to(trainer.strategy.root_device))
    write_weights(run_dir / "bundle", spec, encoder=data.encoder, network=whole.network)
    if data.pretrained and spec.fit.has_frozen_encoder:
        from training.vectors import GRAPH

        shutil.copyfile(data.pretrained.graph, run_dir / "bundle" / GRAPH)
    if find_spec("onnxruntime"):  # elsewhere whoever launched the run does it
        from training.export import complete

        complete(run_dir / "bundle")


def write_predictions(path: Path, data: DetectorData, module: DetectorModule) -> None:
    """The raw logits of every row that was not trained on, with its labels and what evaluation groups by."""
    spec = data.spec
    table = data.split("validation", "calibration", "test")
    examples = data.examples(table)
    columns = {"logit": predict(module, examples, most=data.evaluated_rows)}
    if spec.cascade:
        columns["first_logit"] = predict(module, examples, most=data.evaluated_rows, forward=module.first)
    names = ["event_id", "split", *spec.labels, *FACTS, *spec.slices]
    predictions = table.select([name for name in dict.fromkeys(names) if name in table.column_names])
    for name, logits_BL in columns.items():
        for at, label in enumerate(spec.labels):
            predictions = predictions.append_column(f"{name}_{label}", pa.array(logits_BL[:, at]))
    partial = path.with_name(f"partial.{path.name}")
    pq.write_table(predictions, partial)
    partial.replace(path)


def predict(
    module: DetectorModule,
    examples: Examples,
    *,
    most: int = EVALUATED_ROWS,
    forward: Callable[[Batch], Tensor] | None = None,
) -> Floats:
    """Logits [N, L] of all examples, in their order, `most` at a time: the module's, or those of one part of it."""
    module.eval()
    with torch.inference_mode():
        batches = (move_data_to_device(batch, module.device) for batch in InOrder(examples, most=most))
        parts = [(forward or module)(batch).cpu() for batch in batches]
    return torch.cat(parts).numpy()


def _strategy(config: FitConfig) -> str | Strategy:
    """Under torchrun, also with one process, gradients are averaged, or weights lie in parts, over all processes."""
    if "WORLD_SIZE" not in os.environ:
        return "auto"
    if config.strategy == "ddp":
        return "ddp"
    return ModelParallelStrategy(_world_size(), tensor_parallel_size=1, save_distributed_checkpoint=False)


def _world_size() -> int:
    """How many processes torchrun started; this and LOCAL_WORLD_SIZE are its interface."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _num_micro_batches(run_dir: Path) -> int:
    path = run_dir / "num_micro_batches"
    return int(path.read_text(encoding="utf-8")) if path.exists() else 1


def _start_over(run_dir: Path, *, num_micro_batches: int) -> None:
    """Note in the run folder how many there are to be, where every rank and a restarted run finds it.

    Ranks that run out together write the same.
    """
    partial = run_dir / f"num_micro_batches.{os.getpid()}"
    partial.write_text(str(num_micro_batches), encoding="utf-8")
    partial.replace(run_dir / "num_micro_batches")
    for checkpoint in (run_dir / "checkpoints").glob("*.ckpt"):
        checkpoint.unlink(missing_ok=True)
