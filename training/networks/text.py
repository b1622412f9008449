"""A detector of text: one or more readers, each with a head of its own; their mean is the answer.

The members are trained side by side, each on its own loss: trained on their mean, the one that learns fastest would
leave nothing for the others, and what transfers to texts of other sources learns slowest.

Shapes: P passages · S sum of the readers' sizes · D dense columns · M members · L labels.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag
from torch.nn.utils.rnn import pad_sequence

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.tabular import Heads
from training.reader import NGRAMS, PIECES, windows

if TYPE_CHECKING:
    from training.pretrained import Pretrained

INITIAL_SCALE = 0.1

Batch = dict[str, Tensor]


class MeanOfNgrams(nn.EmbeddingBag):
    """The mean of hashed n-gram embeddings (fastText, arXiv 1607.01759), each weighted by what is learned of it alone.

    A plain mean drowns a few telling n-grams in the many of a long harmless surrounding.
    """

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:  # noqa: ARG002  # one call for all readers
        super().__init__(spec.fit.num_buckets, spec.fit.embedding_size, mode="sum")
        nn.init.normal_(self.weight, std=INITIAL_SCALE)
        self.importance = nn.Parameter(torch.zeros(spec.fit.num_buckets, 1))  # logarithms of weights
        self.size = spec.fit.embedding_size

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]
        """Pooled text [P, E]."""
        ids, offsets_P = batch[NGRAMS], batch[f"{NGRAMS}_offsets_P"]
        weights = embedding(ids, self.importance, sparse=self.sparse).exp()
        totals_P1 = embedding_bag(torch.arange(len(ids), device=ids.device), weights, offsets_P.long(), mode="sum")
        sums_PE = super().forward(ids, offsets_P, per_sample_weights=weights[:, 0])
        return sums_PE / totals_P1.clamp(min=torch.finfo(totals_P1.dtype).tiny)


class MeanOfPieces(nn.EmbeddingBag):
    """The mean of static vectors of word pieces, distilled from the pretrained encoder and not trained on."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        assert encoder.reader is not None
        super().__init__(encoder.reader.num_pieces, spec.fit.static_size, mode="mean")
        nn.init.zeros_(self.weight)
        self.weight.requires_grad = False
        self.size = spec.fit.static_size

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]
        """Pooled text [P, E]."""
        return super().forward(batch[PIECES], batch[f"{PIECES}_offsets_P"])


class FrozenEncoder(nn.Module):
    """The vectors of a pretrained encoder as they come: nothing to train."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:  # noqa: ARG002
        from training.pretrained import hidden_size

        super().__init__()
        self.size = hidden_size(spec.fit.pretrained)

    def forward(self, batch: Batch) -> Tensor:
        """Pooled text [P, E]."""
        return batch["vectors_PE"]


class TunedEncoder(nn.Module):
    """A pretrained encoder whose last layers go on learning."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:  # noqa: ARG002
        from training.pretrained import MeanPooled, hidden_size

        super().__init__()
        self.size = hidden_size(spec.fit.pretrained)
        self.pooled = MeanPooled(spec.fit.pretrained).train()
        self.pooled.requires_grad_(False)
        for layer in self.pooled.layers[-spec.fit.trainable_layers :]:
            layer.requires_grad_(True)

    def forward(self, batch: Batch) -> Tensor:
        """Pooled text [P, E]: as `Embedder` does it, but all windows at once."""
        starts = batch[f"{PIECES}_offsets_P"].cpu().numpy()
        cut = [windows(passage) for passage in np.split(batch[PIECES].cpu().numpy(), starts[1:])]
        owners = torch.tensor([at for at, parts in enumerate(cut) for _ in parts], device=batch[PIECES].device)
        parts = [torch.from_numpy(window).to(owners.device) for parts in cut for window in parts]
        pieces_WT = pad_sequence(parts, batch_first=True)
        sizes_W1 = torch.tensor([[float(len(part))] for part in parts], device=owners.device)
        mask_WT = torch.arange(pieces_WT.shape[1], device=owners.device) < sizes_W1
        vectors_WE = self.pooled(pieces_WT, mask_WT.long()) * sizes_W1
        none_PE = vectors_WE.new_zeros(len(cut), self.size)
        totals_P1 = sizes_W1.new_zeros(len(cut), 1).index_add(0, owners, sizes_W1)
        return none_PE.index_add(0, owners, vectors_WE) / totals_P1


Reading = MeanOfNgrams | MeanOfPieces | FrozenEncoder | TunedEncoder


class TextNetwork(nn.Module):
    """Reads passages in the ways that `fit.readers` names, beside whatever `dense` columns the detector names."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        super().__init__()
        encoder_kind = FrozenEncoder if spec.fit.has_frozen_encoder else TunedEncoder
        kinds: dict[str, Callable[[DetectorSpec, Encoder], Reading]]
        kinds = {"ngram": MeanOfNgrams, "static": MeanOfPieces, "encoder": encoder_kind}
        readers = {name: kinds[name](spec, encoder) for name in spec.fit.readers}
        self.readers = nn.ModuleDict(readers)
        self.head = Heads(spec, encoder, sizes=[reader.size for reader in readers.values()])

    def start_from(self, pretrained: "Pretrained") -> None:
        """Take over what was distilled from the pretrained encoder."""
        for reader in self.readers.values():
            if isinstance(reader, MeanOfPieces):
                reader.weight.data = torch.from_numpy(pretrained.distilled(reader.size))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M, P, L]."""
        texts = [reader(batch) for reader in self.readers.values()]
        return self.head.members(torch.cat([*texts, batch["dense_BD"][batch["owners_P"]]], dim=1))


def worst(logits_PL: Tensor, owners_P: Tensor, *, num_rows: int) -> Tensor:
    """Logits [B, L] of records: of each label the highest over the record's passages."""
    none_BL = logits_PL.new_zeros(num_rows, logits_PL.shape[1])
    return none_BL.scatter_reduce(0, owners_P[:, None].expand_as(logits_PL), logits_PL, "amax", include_self=False)
