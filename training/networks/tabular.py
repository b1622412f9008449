"""Learns from numbers and categories: periodic embeddings, category embeddings and a small MLP on top.

`PeriodicEmbeddings` follows Gorishniy et al. 2022 (arXiv 2203.05556), "PLR" with one linear layer shared by all
numbers. It is written out, because a training machine may have torch and little else; a test holds it equal to
`rtdl_num_embeddings`.

Shapes: B rows · N numbers · K frequencies · E size of one embedding · D input columns · L labels.
"""

import math

import torch
from torch import Tensor, nn

from training.detector import DetectorSpec
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
    """The `dense` columns of an encoder as features: numbers, is-missing flags, categories."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.num_numbers = len(encoder.numbers)
        self.periodic = PeriodicEmbeddings(self.num_numbers, NUMBER_SIZE) if self.num_numbers else None
        category_sizes = [min(16, 1 + cardinality // 2) for cardinality in encoder.cardinalities]
        self.categories = nn.ModuleList(map(nn.Embedding, encoder.cardinalities, category_sizes))
        self.size = self.num_numbers * (NUMBER_SIZE + 1) + sum(category_sizes)

    def forward(self, dense_BD: Tensor) -> Tensor:
        """Features [B, size]."""
        numbers, flags, ids = dense_BD.tensor_split([self.num_numbers, 2 * self.num_numbers], dim=1)
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
        text, dense = input_BD.tensor_split([self.text_size], dim=1)
        return self.mlp(torch.cat([self.norm(text), self.columns(dense)], dim=1))


class Heads(nn.Module):
    """One head per member over its own part of the pooled text and all dense columns: what ONNX holds."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder, *, sizes: list[int]) -> None:
        super().__init__()
        self.parts = [*sizes, encoder.width]
        self.width = sum(self.parts)
        heads = [Head(spec.fit, encoder, text_size=size, num_labels=len(spec.labels)) for size in sizes]
        self.heads = nn.ModuleList(heads)

    def members(self, input_PD: Tensor) -> Tensor:
        """Logits [M, P, L]."""
        *texts, dense = torch.split(input_PD, self.parts, dim=1)
        pairs = zip(self.heads, texts, strict=True)
        return torch.stack([head(torch.cat([text, dense], dim=1)) for head, text in pairs])

    def forward(self, input_PD: Tensor) -> Tensor:
        """Logits [P, L]."""
        return self.members(input_PD).mean(0)
