"""Windows of many texts in one row, without padding, as a pretrained encoder reads them while it is tuned.

Every piece knows its place in its window, and attention stays within a window. On a GPU in half precision that is the
variable-length kernel of torch; elsewhere windows of one size are read together, which is why they lie by size. Three
quarters of content_mix's texts have fewer than 40 pieces and one in forty more than 256: padded to the longest of a
batch of 512, five sixths of what is computed would be padding.

Shapes: N pieces of a batch · W windows · P passages · H attention heads · D size of a head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from training.reader import PIECES, WINDOW

NAME = "packed"  # among the attention functions of transformers
BODY = WINDOW - 2  # pieces of a window between the two marks
SIDE_BY_SIDE = 128  # windows, where they cannot be read in one row
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Packed:
    """The windows of passages one after the other, the longest first, as `reader.windows` cuts them."""

    pieces: Tensor  # [N]
    places: Tensor  # [N], of each piece within its window
    window_sizes: Tensor  # [W]
    window_owners: Tensor  # [W], the passage of each window

    @classmethod
    def in_batch(cls, batch: Mapping[str, Tensor]) -> Self:
        """As `add_windows` laid them out, or cut now."""
        names = [field.name for field in fields(cls)]
        if set(names) <= batch.keys():
            return cls(*(batch[name] for name in names))
        return cls.of(batch[PIECES], batch[f"{PIECES}_offsets_P"])

    @classmethod
    def of(cls, pieces: Tensor, offsets_P: Tensor) -> Self:
        """Cut passages, each of which begins and ends with a mark that all of its windows get."""
        device, firsts_P = pieces.device, offsets_P.long()
        lasts_P = torch.cat([firsts_P[1:], firsts_P.new_tensor([len(pieces)])]) - 1
        bodies_P = lasts_P - firsts_P - 1
        counts_P = ((bodies_P + BODY - 1) // BODY).clamp(min=1)
        owners_W = torch.repeat_interleave(torch.arange(len(counts_P), device=device), counts_P)
        numbers_W = torch.arange(len(owners_W), device=device) - (counts_P.cumsum(0) - counts_P)[owners_W]
        sizes_W, order_W = torch.sort((bodies_P[owners_W] - numbers_W * BODY).clamp(max=BODY) + 2, descending=True)
        owners_W, numbers_W = owners_W[order_W], numbers_W[order_W]

        of_N = torch.repeat_interleave(torch.arange(len(sizes_W), device=device), sizes_W)
        places_N = torch.arange(len(of_N), device=device) - _bounds(sizes_W)[of_N]
        within_N = firsts_P[owners_W[of_N]] + numbers_W[of_N] * BODY + places_N
        at_N = torch.where(places_N == 0, firsts_P[owners_W[of_N]], within_N)
        at_N = torch.where(places_N == sizes_W[of_N] - 1, lasts_P[owners_W[of_N]], at_N)
        return cls(pieces[at_N].long(), places_N, sizes_W, owners_W)

    def read(self, model: nn.Module) -> tuple[Tensor, ...]:
        """The states [N, E] of every layer of a model of transformers whose attention is NAME."""
        places_1N, bounds = self.places[None] + _first_place(model), _bounds(self.window_sizes).int()
        read = model(
            input_ids=self.pieces[None], position_ids=places_1N, output_hidden_states=True, cu_seq_lens_q=bounds
        )
        return tuple(states_1NE[0] for states_1NE in read.hidden_states)

    def padded(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same windows side by side, some at a time: their pieces [W, T], and which of them are not padding."""
        windows = list(torch.split(self.pieces, self.window_sizes.tolist()))
        for first in range(0, len(windows), SIDE_BY_SIDE):
            pieces_WT = pad_sequence(windows[first : first + SIDE_BY_SIDE], batch_first=True)
            places_T = torch.arange(pieces_WT.shape[1], device=pieces_WT.device)
            yield pieces_WT, places_T < self.window_sizes[first : first + SIDE_BY_SIDE, None]

    def means(self, states_NE: Tensor, *, num_passages: int) -> Tensor:
        """The mean state of each passage's pieces, marks of every window included [P, E]."""
        sums_WE = torch.segment_reduce(states_NE.float(), "sum", lengths=self.window_sizes, axis=0, unsafe=True)
        sums_PE = sums_WE.new_zeros(num_passages, sums_WE.shape[1]).index_add(0, self.window_owners, sums_WE)
        counts_P = sums_PE.new_zeros(num_passages).index_add(0, self.window_owners, self.window_sizes.float())
        return sums_PE / counts_P[:, None]


def add_windows(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut on the processor, where no count has to be waited for, what a GPU will read."""
    return {**batch, **vars(Packed.of(batch[PIECES], batch[f"{PIECES}_offsets_P"]))}


def _bounds(sizes_W: Tensor) -> Tensor:
    return nn.functional.pad(sizes_W.cumsum(0), (1, 0))


def _first_place(model: nn.Module) -> int:
    """RoBERTa and its kin count places from beyond the id of padding, which then has an embedding of its own."""
    found = [part.padding_idx for name, part in model.named_modules() if name.endswith("position_embeddings")]
    return found[0] + 1 if found and found[0] is not None else 0


def attention(_: nn.Module, *states: Tensor | None, cu_seq_lens_q: Tensor, **others: Any) -> tuple[Tensor, None]:
    """From query, key and value [1, H, N, D] to [1, N, H, D]; no dropout within, as torch's kernel has none."""
    query, key, value = (one[0].transpose(0, 1) for one in states[:3] if one is not None)
    usual = query.shape[2] ** -0.5
    if (scaling := others.get("scaling") or usual) != usual:
        query = query * (scaling / usual)
    if query.is_cuda and query.dtype in HALF:
        from torch.nn.attention.varlen import varlen_attn

        found = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, WINDOW, WINDOW)
        assert isinstance(found, Tensor)
        return found[None], None
    return _by_size(query, key, value, cu_seq_lens_q)[None], None


@torch.compiler.disable
def _by_size(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> Tensor:
    """Attention over [N, H, D] of windows of one size at a time."""
    alike = [(size, len(list(same))) for size, same in groupby(bounds.diff().tolist())]
    ends = [size * count for size, count in alike]  # split, as a slice's gradient would be as large as the whole
    parts = []
    for (size, count), *chunks in zip(alike, *(torch.split(one, ends) for one in (query, key, value)), strict=True):
        windows = (chunk.reshape(count, size, *chunk.shape[1:]).transpose(1, 2) for chunk in chunks)
        parts.append(scaled_dot_product_attention(*windows).transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)
