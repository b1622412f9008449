"""Learns from numbers and categories: periodic embeddings, category embeddings and a small MLP on top.

`PeriodicEmbeddings` follows Gorishniy et al. 2022 (arXiv 2203.05556), "PLR" with one linear layer shared by all
numbers. It is written out, because a training machine may have torch and little else; a test holds it equal to
`rtdl_num_embeddings`.

Shapes: B rows · N numbers · K frequencies · E size of one embedding · D input columns · L labels.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.encoder import Encoder
from training.fit_config import FitConfig

NUM_FREQUENCIES = 16
FREQUENCY_SCALE = 0.2
NUMBER_SIZE = 8  # of an embedding


class PeriodicEmbeddings(nn.Module):
    """Each number as a ReLU of a linear map of its sines and cosines at learned frequencies."""

    def __init__(self, num_numbers: int, size: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.empty(num_numbers, NUM_FREQUENCIES))
        bound = 3 * FREQUENCY_SCALE
        nn.init.trunc_normal_(self.frequencies, 0.0, FREQUENCY_SCALE, a=-bound, b=bound)
        self.linear = nn.Linear(2 * NUM_FREQUENCIES, size)

    def forward(self, numbers_BN: Tensor) -> Tensor:
        """Embeddings [B, N, E]."""
        angles_BNK = 2 * math.pi * self.frequencies * numbers_BN[..., None]
        return torch.relu(self.linear(torch.cat([torch.cos(angles_BNK), torch.sin(angles_BNK)], -1)))


class Columns(nn.Module):
    """The `dense` columns of an encoder as features: numbers, is-missing flags, categories.

    Here and in the heads tensors are split into given sizes: `tensor_split` is traced to a loop over a sequence, with
    which ONNX Runtime took twice as long for the head of the n-grams.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.num_numbers = len(encoder.numbers)
        self.periodic = PeriodicEmbeddings(self.num_numbers, NUMBER_SIZE) if self.num_numbers else None
        category_sizes = [min(16, 1 + cardinality // 2) for cardinality in encoder.cardinalities]
        self.categories = nn.ModuleList(map(nn.Embedding, encoder.cardinalities, category_sizes))
        self.size = self.num_numbers * (NUMBER_SIZE + 1) + sum(category_sizes)

    def forward(self, dense_BD: Tensor) -> Tensor:
        """Features [B, size]."""
        numbers, flags, ids = torch.split(dense_BD, [self.num_numbers, self.num_numbers, len(self.categories)], dim=1)
        features = [embed(ids[:, i].long()) for i, embed in enumerate(self.categories)]
        if self.periodic is not None:
            features += [self.periodic(numbers).flatten(1), flags]
        return torch.cat(features, dim=1) if features else dense_BD


class Head(nn.Module):
    """From a pooled text (`text_size` columns, possibly none) and the `dense` columns to logits: what ONNX holds."""

    def __init__(self, config: FitConfig, encoder: Encoder, *, text_size: int, num_labels: int) -> None:
        super().__init__()
        self.text_size = text_size
        self.width = text_size + encoder.width
        self.norm = nn.LayerNorm(text_size) if text_size else nn.Identity()
        self.columns = Columns(encoder)
        size = config.hidden_size
        self.mlp = nn.Sequential(
            *(nn.Linear(text_size + self.columns.size, size), nn.ReLU(), nn.Dropout(config.dropout)),
            *(nn.Linear(size, size), nn.ReLU(), nn.Dropout(config.dropout)),
            nn.Linear(size, num_labels),
        )

    def forward(self, input_BD: Tensor) -> Tensor:
        """Logits [B, L]."""
        text, dense = torch.split(input_BD, [self.text_size, self.width - self.text_size], dim=1)
        return self.mlp(torch.cat([self.norm(text), self.columns(dense)], dim=1))


class LogisticHead(nn.Module):
    """For a text that is read as logits [B, L] already: the `dense` columns add to them."""

    def __init__(self, encoder: Encoder, *, num_labels: int) -> None:
        super().__init__()
        self.text_size = num_labels
        self.width = num_labels + encoder.width
        self.columns = Columns(encoder)
        self.linear = nn.Linear(self.columns.size, num_labels) if self.columns.size else None
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def start_from(self, shares_L: Tensor) -> None:
        """Begin with how often each label is violated, which the n-grams that all texts have would else learn to say.

        Begun at one value for all labels, macro average precision of validation rows of content_mix was .906 for .925.
        """
        self.bias.data = torch.logit(shares_L)

    def forward(self, input_BD: Tensor) -> Tensor:
        """Logits [B, L]."""
        text, dense = torch.split(input_BD, [self.text_size, self.width - self.text_size], dim=1)
        logits_BL = text + self.bias
        return logits_BL if self.linear is None else logits_BL + self.linear(self.columns(dense))


class Heads(nn.Module):
    """Each head reads its own part of the pooled text and all dense columns: what ONNX holds.

    The answer is the mean over members, and that of a member the mean over its heads.
    """

    def __init__(self, members: Sequence[Sequence[Head | LogisticHead]], encoder: Encoder) -> None:
        super().__init__()
        self.heads = nn.ModuleList(head for member in members for head in member)
        self.shares = [1 / len(members) / len(member) for member in members for _ in member]
        self.parts = [*(head.text_size for member in members for head in member), encoder.width]
        self.width = sum(self.parts)

    def each(self, input_PD: Tensor) -> Tensor:
        """Logits [H, P, L] of every head."""
        *texts, dense = torch.split(input_PD, self.parts, dim=1)
        pairs = zip(self.heads, texts, strict=True)
        return torch.stack([head(torch.cat([text, dense], dim=1)) for head, text in pairs])

    def mean(self, logits_HPL: Tensor) -> Tensor:
        """The answer [P, L] to the logits of all heads."""
        return (logits_HPL * logits_HPL.new_tensor(self.shares)[:, None, None]).sum(0)

    def forward(self, input_PD: Tensor) -> Tensor:
        """Logits [P, L]."""
        return self.mean(self.each(input_PD))


class Network(nn.Module, ABC):
    """What a detector learns with: a batch in, logits out; its `head` is what follows the pooled text."""

    head: Heads

    @abstractmethod
    def each(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [H, P, L] of every head."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [P, L]."""
        return self.head.mean(self.each(batch))
