"""A detector of text: the mean of hashed n-gram embeddings (fastText, arXiv 1607.01759) under a small MLP."""

import torch
from torch import Tensor, nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.tabular import Head

INITIAL_SCALE = 0.1


class NgramNetwork(nn.Module):
    """Reads a bag of n-grams, beside whatever `dense` columns the detector names."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        super().__init__()
        size = spec.fit.embedding_size
        self.bag = nn.EmbeddingBag(spec.fit.num_buckets, size, mode="mean")
        nn.init.normal_(self.bag.weight, std=INITIAL_SCALE)
        self.head = Head(spec.fit, encoder, text_size=size, num_labels=len(spec.labels))

    def forward(self, dense_BD: Tensor, ids: Tensor, offsets_B: Tensor) -> Tensor:
        """Logits [B, L]."""
        return self.head(torch.cat([self.bag(ids, offsets_B), dense_BD], dim=1))
