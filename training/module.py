"""How a network learns: the loss over known labels, the validation metric, the optimizer."""

from itertools import chain
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.classification import BinaryAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from training.data import UNKNOWN, Batch
from training.fit_config import WATCHED, FitConfig
from training.networks.tabular import LogisticHead, Network
from training.networks.text import TunedEncoder, worst
from training.optimizers import AdamWithTables

NGRAM_TABLE = "readers.ngram."
NGRAM_SHARE = 30  # of the rate and per row of a batch, so a row moves its n-grams as far in a batch of any size
NGRAM_PENALTY = 0.1  # the inverse of the C of liblinear and scikit-learn
PRETRAINED, PRETRAINED_SHARE = "readers.encoder.", 0.02  # layers that have learned before move slowly


def masked_loss(logits_BL: Tensor, labels_BL: Tensor, weights_B: Tensor, *, assumed_L: Tensor | float = 0.0) -> Tensor:
    """Weighted binary cross-entropy where a label is known, over B x L: a divisor that all ranks share.

    An unknown label counts as benign with a small weight or, at 0, not at all.

    So the mean over ranks, which DDP takes, is that over the global batch, however the unknown labels are spread.
    """
    losses = binary_cross_entropy_with_logits(logits_BL, labels_BL.clamp(min=0), reduction="none")
    known_BL = torch.where(labels_BL == UNKNOWN, assumed_L, 1.0)
    return (losses * known_BL * weights_B[:, None]).mean()


def _seed(number: int) -> None:
    """As `torch.manual_seed`, which notes a stack for each kind of accelerator that is not there: 1 ms per step."""
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)


class AveragePrecision(BinaryAveragePrecision):
    """Of the rows with a known verdict; 0 where there is none, of which the library makes an IndexError."""

    def compute(self) -> Tensor:
        """Once all ranks' rows are gathered."""
        known = dim_zero_cat(self.target)
        return super().compute() if known.numel() else known.new_zeros((), dtype=torch.float32)


class DetectorModule(L.LightningModule):
    """Trains any network of the registry."""

    def __init__(self, network: Network, config: FitConfig, *, labels: list[str]) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.metrics = [AveragePrecision(ignore_index=int(UNKNOWN)) for _ in labels]
        self.registered_metrics = nn.ModuleList(self.metrics)  # so that they move to the device
        self.assumed_L: Tensor
        assumed = [config.assumed_benign.get(label, 0.0) for label in labels]
        self.register_buffer("assumed_L", torch.tensor(assumed), persistent=False)

    @property
    def is_on_gpu(self) -> bool:
        """Whether this process trains on an accelerator."""
        return self.trainer.strategy.root_device.type != "cpu"

    @property
    def has_sparse_tables(self) -> bool:
        """Whether tables get sparse gradients; NCCL and FSDP2 cannot reduce those, and a GPU does not need them."""
        return not self.is_on_gpu and self.device_mesh is None

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Before the strategy wraps the network, which looks at it."""
        for part in self.network.modules():
            if isinstance(part, nn.EmbeddingBag):
                part.sparse = self.has_sparse_tables
            if isinstance(part, TunedEncoder) and self.config.is_compiled and self.is_on_gpu:
                part.pooled.compile_layers()

    def configure_model(self) -> None:
        """Under FSDP2, part the weights over the devices: layer by layer those of a tuned encoder, then all others."""
        if self.device_mesh is None or isinstance(self.network, FSDPModule):
            return
        parts = [part for part in self.network.modules() if isinstance(part, TunedEncoder)]
        for layer in chain.from_iterable(part.pooled.layers for part in parts):
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])
        fully_shard(self.network, mesh=self.device_mesh["data_parallel"])
        register_fsdp_forward_method(self.network, "each")

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, L] of a batch."""
        logits_PL = self.network.head.mean(self.network.each(batch))
        return worst(logits_PL, batch["owners_P"], num_rows=len(batch["dense_BD"]))

    def first(self, batch: Batch) -> Tensor:
        """Logits [B, L] of the network's first member alone."""
        return worst(self.network.each(batch)[0], batch["owners_P"], num_rows=len(batch["dense_BD"]))

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of one micro-batch."""
        # Dropout is a function of the step and the rank, so that a resumed run repeats what the killed one would do.
        place = self.trainer.fit_loop.total_batch_idx * self.trainer.world_size + self.global_rank
        _seed(self.config.seed * 1_000_003 + place)
        pairs = zip(self.network.head.heads, self.network.each(batch), strict=True)
        loss = torch.stack([self._loss(head, logits_PL, batch) for head, logits_PL in pairs]).mean()
        self.log("train_loss", loss, batch_size=len(batch["labels_BL"]))
        return loss

    def _loss(self, head: nn.Module, logits_PL: Tensor, batch: Batch) -> Tensor:
        """Of one head: what makes heads on vectors transfer (see FitConfig) would cost a regression on n-grams."""
        logits_BL = worst(logits_PL, batch["owners_P"], num_rows=len(batch["dense_BD"]))
        if isinstance(head, LogisticHead):
            return masked_loss(logits_BL, batch["labels_BL"], batch["weights_B"])
        weights_B = batch["weights_B"] * batch["source_weights_B"]
        return masked_loss(logits_BL, batch["labels_BL"], weights_B, assumed_L=self.assumed_L)

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
        """AdamW, and what descends on each regression on n-grams, under one cycle of the learning rate."""
        config, data = self.config, self.trainer.datamodule
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                prefix = next((at for at in (NGRAM_TABLE, PRETRAINED) if name.startswith(at)), "")
                groups.setdefault(prefix, []).append(parameter)
        tables = groups.pop(NGRAM_TABLE, [])
        dense = [{"params": parameters, "weight_decay": config.weight_decay} for parameters in groups.values()]
        rates = [config.learning_rate * (PRETRAINED_SHARE if name == PRETRAINED else 1) for name in groups]
        regressions = []
        if tables:
            num_losses = len(self.metrics) * len(self.network.head.heads)  # of which the loss is the mean
            rates.append(config.learning_rate * NGRAM_SHARE * config.global_batch_size * num_losses)
            penalty = NGRAM_PENALTY / len(data.rows) / num_losses
            regressions = [{"params": tables, "curvature": data.curvature, "penalty": penalty}]
        optimizer = AdamWithTables(dense, regressions, learning_rate=config.learning_rate)
        # Lightning's own estimate would make the loader before its place is restored from a checkpoint.
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=data.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
