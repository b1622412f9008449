"""How a network learns: the loss over known labels, the validation metric, the optimizer."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.classification import BinaryAveragePrecision

from training.data import UNKNOWN, Batch
from training.fit_config import FitConfig

WATCHED = "validation_average_precision"
RARE_RATE = 10.0  # an n-gram is in few of the rows and a small part of each, so its embedding moves faster


def masked_loss(logits_BL: Tensor, labels_BL: Tensor, weights_B: Tensor) -> Tensor:
    """Weighted binary cross-entropy where a label is known, over B x L: a divisor that all ranks share.

    So the mean over ranks, which DDP takes, is that over the global batch, however the unknown labels are spread.
    """
    losses = binary_cross_entropy_with_logits(logits_BL, labels_BL.clamp(min=0), reduction="none")
    return (losses * (labels_BL != UNKNOWN) * weights_B[:, None]).mean()


class DetectorModule(L.LightningModule):
    """Trains any network of the registry."""

    def __init__(self, network: nn.Module, config: FitConfig, *, num_labels: int) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.metrics = [BinaryAveragePrecision(ignore_index=int(UNKNOWN)) for _ in range(num_labels)]
        self.registered_metrics = nn.ModuleList(self.metrics)  # so that they move to the device

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, L] of a batch."""
        return self.network(batch["dense_BD"], batch["ids"], batch["offsets_B"])

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of one micro-batch."""
        # Dropout is a function of the step and the rank, so that a resumed run repeats what the killed one would do.
        place = self.trainer.fit_loop.total_batch_idx * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.config.seed * 1_000_003 + place)
        loss = masked_loss(self(batch), batch["labels_BL"], batch["weights_B"])
        self.log("train_loss", loss, batch_size=len(batch["labels_BL"]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Collect logits; the metric is computed once, over all ranks."""
        logits_BL, labels_BL = self(batch), batch["labels_BL"]
        for at, metric in enumerate(self.metrics):
            metric.update(logits_BL[:, at], labels_BL[:, at].int())
        loss = masked_loss(logits_BL, labels_BL, batch["weights_B"])
        self.log("validation_loss", loss, batch_size=len(labels_BL), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Macro mean over the labels; a label without a violation among the validation rows counts as 0."""
        per_label = [metric.compute() for metric in self.metrics]
        for metric in self.metrics:
            metric.reset()
        self.log(WATCHED, torch.stack(per_label).nan_to_num().mean())

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under one cycle of the learning rate."""
        config = self.config
        rare = [p for name, p in self.network.named_parameters() if name.startswith("bag.")]
        others = [p for name, p in self.network.named_parameters() if not name.startswith("bag.")]
        groups: list[dict[str, Any]] = [{"params": others, "weight_decay": config.weight_decay}]
        groups += [{"params": rare, "weight_decay": 0.0}] if rare else []
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        rates = [config.learning_rate, config.learning_rate * RARE_RATE][: len(groups)]
        # Lightning's own estimate would make the loader before its place is restored from a checkpoint.
        steps = self.trainer.datamodule.num_steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
