"""A detector of text: one or more readers, each with heads of its own; the mean over readers is the answer.

The heads are trained side by side, each on its own loss: trained on their mean, the one that learns fastest would
leave nothing for the others, and what transfers to texts of other sources learns slowest.

Shapes: P passages · E size of a pooled text · D dense columns · H heads · L labels.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from training.detector import DetectorSpec
from training.encoder import Doubles, Encoded, Encoder
from training.networks.tabular import Head, Heads, LogisticHead, Network
from training.ngrams import SLOPE
from training.packed import Packed
from training.reader import NGRAMS, PIECES, Bags

if TYPE_CHECKING:
    from training.pretrained import Pretrained

FEWEST_BAGS = 2  # that hold an n-gram which counts at all

Batch = dict[str, Tensor]


class NgramRegression(nn.EmbeddingBag):
    """Logistic regression on hashed n-grams weighted by tf-idf: one weight per n-gram and label.

    A text's features are divided by half of their own Euclidean length and half of that of a usual text (pivoted length
    normalisation, Singhal et al. 1996), so that a few telling n-grams fade slowly in what surrounds them. On validation
    rows of content_mix their own length alone gave a macro average precision of .905, this one .913.
    """

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:  # noqa: ARG002  # one call for all readers
        super().__init__(spec.fit.num_buckets, len(spec.labels), mode="sum")
        nn.init.zeros_(self.weight)
        self.idf: Tensor
        self.pivot: Tensor
        self.register_buffer("idf", torch.ones(spec.fit.num_buckets, 1))
        self.register_buffer("pivot", torch.ones(1))
        self.sizes = [len(spec.labels)]

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]
        """Logits [P, L], without what an empty text has."""
        ids, offsets_P = batch[NGRAMS], batch[f"{NGRAMS}_offsets_P"]
        weights = embedding(ids, self.idf)
        squares_P1 = embedding_bag(torch.arange(len(ids), device=ids.device), weights**2, offsets_P.long(), mode="sum")
        sums_PL = super().forward(ids, offsets_P, per_sample_weights=weights[:, 0])
        return sums_PL / ((1 - SLOPE) * self.pivot + SLOPE * squares_P1.sqrt())

    def start_from(self, shown: Bags) -> None:
        """Take over how rare n-grams are, and how long texts are."""
        self.idf = inverse_document_frequency(shown, self.num_embeddings)
        squares = self.idf.numpy()[:, 0] ** 2
        lengths = [np.sqrt(squares[shown.ids[a:b]].sum()) for a, b in pairwise(shown.bounds.tolist())]
        self.pivot = torch.tensor([float(np.mean(lengths))])


def inverse_document_frequency(bags: Bags, size: int) -> Tensor:
    """The smoothed logarithm [size, 1] of how rare each id is among the bags; 0 for ids that fewer than two hold."""
    counts = np.zeros(size, np.int64)
    for first, last in pairwise(bags.bounds.tolist()):
        counts[bags.ids[first:last]] += 1
    idf = np.log((1 + len(bags)) / (1 + counts)) + 1
    return torch.from_numpy(np.where(counts < FEWEST_BAGS, 0, idf)[:, None].astype(np.float32))


class MeanOfPieces(nn.EmbeddingBag):
    """The mean of static vectors of word pieces, distilled from the pretrained encoder and not trained on."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        assert encoder.reader is not None
        super().__init__(encoder.reader.num_pieces, spec.fit.static_size, mode="mean")
        nn.init.zeros_(self.weight)
        self.weight.requires_grad = False
        self.sizes = [spec.fit.static_size]

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]
        """Pooled text [P, E]."""
        return super().forward(batch[PIECES], batch[f"{PIECES}_offsets_P"])


class FrozenEncoder(nn.Module):
    """The vectors of a pretrained encoder as they come: nothing to train."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:  # noqa: ARG002
        from training.pretrained import layer_sizes

        super().__init__()
        self.sizes = layer_sizes(spec.fit.pretrained)

    def forward(self, batch: Batch) -> Tensor:
        """Pooled text [P, E]."""
        return batch["vectors_PE"]


class TunedEncoder(nn.Module):
    """A pretrained encoder whose last layers go on learning."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:  # noqa: ARG002
        from training.pretrained import MeanPooled, layer_sizes

        super().__init__()
        self.sizes = layer_sizes(spec.fit.pretrained)
        self.pooled = MeanPooled(spec.fit.pretrained).train()
        self.pooled.requires_grad_(False)
        self.in_one_row = self.pooled.reads_one_row()
        for layer in self.pooled.layers[-spec.fit.trainable_layers :]:
            layer.requires_grad_(True)

    def forward(self, batch: Batch) -> Tensor:
        """Pooled text [P, E]."""
        windows = Packed.in_batch(batch)
        return self.pooled.passages(windows, num_passages=len(batch["owners_P"]), in_one_row=self.in_one_row)


Reading = NgramRegression | MeanOfPieces | FrozenEncoder | TunedEncoder


class TextNetwork(Network):
    """Reads passages in the ways that `fit.readers` names, beside whatever `dense` columns the detector names."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        super().__init__()
        encoder_kind = FrozenEncoder if spec.fit.has_frozen_encoder else TunedEncoder
        kinds: dict[str, Callable[[DetectorSpec, Encoder], Reading]]
        kinds = {"ngram": NgramRegression, "static": MeanOfPieces, "encoder": encoder_kind}
        readers = {name: kinds[name](spec, encoder) for name in spec.fit.readers}
        self.readers = nn.ModuleDict(readers)
        self.head = Heads([_heads(spec, encoder, reader) for reader in readers.values()], encoder)

    def start_from(self, shown: Encoded, shares: Doubles, pretrained: "Pretrained | None") -> None:
        """Take over how rare n-grams and violations [L] are in what is shown, and what the encoder was distilled to."""
        for head in self.head.heads:
            if isinstance(head, LogisticHead):
                head.start_from(torch.tensor(shares, dtype=torch.float32))
        for reader in self.readers.values():
            if isinstance(reader, NgramRegression):
                reader.start_from(shown.bags[NGRAMS])
            if isinstance(reader, MeanOfPieces):
                assert pretrained is not None
                reader.weight.data = torch.from_numpy(pretrained.distilled(reader.embedding_dim))

    def each(self, batch: Batch) -> Tensor:
        """Logits [H, P, L] of every head."""
        texts = [reader(batch) for reader in self.readers.values()]
        return self.head.each(torch.cat([*texts, batch["dense_BD"][batch["owners_P"]]], dim=1))


def _heads(spec: DetectorSpec, encoder: Encoder, reader: Reading) -> list[Head | LogisticHead]:
    """One for each part of what is read: a pretrained encoder is read at several layers."""
    if isinstance(reader, NgramRegression):
        return [LogisticHead(encoder, num_labels=len(spec.labels))]
    return [Head(spec.fit, encoder, text_size=size, num_labels=len(spec.labels)) for size in reader.sizes]


def worst(logits_PL: Tensor, owners_P: Tensor, *, num_rows: int) -> Tensor:
    """Logits [B, L] of records: of each label the highest over the record's passages."""
    none_BL = logits_PL.new_zeros(num_rows, logits_PL.shape[1])
    return none_BL.scatter_reduce(0, owners_P[:, None].expand_as(logits_PL), logits_PL, "amax", include_self=False)
