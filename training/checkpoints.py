"""Stores where a fit is, often enough that a kill costs little and seldom enough that storing does."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

EVERY_S = 1.0
LOOKS_EVERY_STEPS = 10  # ranks agree on the time by a message, which a step on a GPU would wait for
LARGEST_SHARE = 0.03  # of the time of a fit


class LastStep(ModelCheckpoint):
    """The newest checkpoint, `last.ckpt`, every few seconds; less often where weights are many or the disk is slow."""

    def __init__(self, folder: Path, *, every_s: float = EVERY_S) -> None:
        super().__init__(folder, "step", train_time_interval=timedelta(seconds=every_s), save_last="link")
        self.every_s = every_s
        self._is_due = False

    @property
    def state_key(self) -> str:
        """By which a resumed fit finds what this one stored, whatever the interval has become."""
        return type(self).__name__

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        """Look at the clock between two steps, and learn how long storing takes.

        Not after an epoch's last step: a fit that went on from there would take its validation for done.
        """
        if trainer.fit_loop._should_accumulate():
            return
        self._is_due = self._is_due or trainer.global_step % LOOKS_EVERY_STEPS == 0
        if not self._is_due or trainer.is_last_batch:
            return
        self._is_due = False
        started, before = time.monotonic(), self._last_global_step_saved
        super().on_train_batch_end(trainer, *rest)
        if self._last_global_step_saved != before:
            self.every_s = max(self.every_s, (time.monotonic() - started) / LARGEST_SHARE)
            self._train_time_interval = timedelta(seconds=self.every_s)
