"""Writes the curves of a run to metrics.jsonl while it trains; whoever started the run tails the file."""

import json
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

EVERY_STEPS = 10


class Progress(L.Callback):
    """One line per value: {"epoch", "step", "name", "value"}. A resumed run drops the lines it is about to repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Keep what happened before the checkpoint."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= trainer.global_step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """The loss of every tenth step."""
        if trainer.global_step % EVERY_STEPS == 0 and not trainer.fit_loop._should_accumulate():
            self._write(trainer, ["train_loss"])

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """The metrics of the epoch."""
        self._write(trainer, sorted(name for name in trainer.callback_metrics if name.startswith("validation_")))

    def _write(self, trainer: L.Trainer, names: list[str]) -> None:
        facts = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        with self.path.open("a", encoding="utf-8") as lines:
            for name in names:
                lines.write(json.dumps({**facts, "name": name, "value": float(trainer.callback_metrics[name])}) + "\n")
