"""Windows in one row, as an encoder reads them while it is tuned, beside the same windows one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

from training.packed import Packed, add_windows
from training.pretrained import MeanPooled
from training.reader import PIECES, WINDOW, Bags, windows

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
MARKS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
KINDS = {
    "bert": lambda: BertModel(BertConfig(vocab_size=100, **SIZES)),
    "counts places from beyond padding": lambda: RobertaModel(
        RobertaConfig(vocab_size=100, max_position_embeddings=WINDOW + 2, **SIZES)
    ),
    "looks at neighbours alone": lambda: ModernBertModel(ModernBertConfig(vocab_size=100, **SIZES, **MARKS)),
}


def bags_of(sizes: list[int]) -> Bags:
    """Passages of so many pieces."""
    return Bags.of(np.random.default_rng(5).integers(3, 99, sum(sizes)), np.array(sizes))


def packed(bags: Bags) -> Packed:
    return Packed.of(torch.from_numpy(bags.ids), torch.from_numpy(bags.bounds[:-1].astype(np.int32)))


@given(st.lists(st.integers(2, 3 * WINDOW), min_size=1, max_size=6))
def test_passages_are_cut_as_serving_cuts_them(sizes: list[int]) -> None:
    bags = bags_of(sizes)
    expected = [
        (owner, window.tolist())
        for owner in range(len(bags))
        for window in windows(bags.ids[bags.bounds[owner] : bags.bounds[owner + 1]])
    ]

    found = packed(bags)
    runs = torch.split(found.pieces, found.window_sizes.tolist())
    pairs = zip(found.window_owners.tolist(), (run.tolist() for run in runs), strict=True)

    assert sorted(pairs) == sorted(expected)
    assert found.window_sizes.tolist() == sorted(map(len, runs), reverse=True)
    assert found.places.tolist() == [place for run in runs for place in range(len(run))]


def test_windows_laid_out_beforehand_are_those_cut_when_needed() -> None:
    bags = bags_of([4, WINDOW + 1, 9])
    batch = {PIECES: torch.from_numpy(bags.ids), f"{PIECES}_offsets_P": torch.from_numpy(bags.bounds[:-1])}

    found, now = Packed.in_batch(add_windows(batch)), Packed.in_batch(batch)

    assert all(torch.equal(getattr(found, name), getattr(now, name)) for name in vars(now))


@pytest.mark.parametrize("kind", KINDS)
def test_a_passage_has_the_vector_of_its_windows_read_one_by_one(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = KINDS[kind]()
    for weights in model.parameters():
        weights.data = torch.randn_like(weights) / 5 if weights.ndim > 1 else weights.data
    model.save_pretrained(tmp_path)
    encoder, bags = MeanPooled(str(tmp_path)).eval(), bags_of([3, 3, 40, WINDOW, WINDOW + 50, 2])
    expected = []
    for first, last in zip(bags.bounds, bags.bounds[1:], strict=False):
        cut = windows(bags.ids[first:last])
        with torch.inference_mode():
            vectors_WE = torch.cat([encoder(torch.from_numpy(window[None])) for window in cut])
        expected.append(np.average(vectors_WE.numpy(), axis=0, weights=list(map(len, cut))))

    one_row = encoder.reads_one_row()
    with torch.inference_mode():
        found = encoder.passages(packed(bags), num_passages=len(bags), in_one_row=one_row)

    assert one_row == (kind != "looks at neighbours alone")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
