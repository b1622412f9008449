"""Vectors of a pretrained encoder: the same alone and in a batch, in torch and in ONNX, now and from the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import tiny_encoder
from training.pretrained import MeanPooled, Pretrained, write_graph
from training.reader import PIECES, WINDOW, Bags, Reader, windows
from training.vectors import Embedder, VectorCache

SAID = ["parcel invoice", "", "jackpot " * 700, "garden", "parcel invoice"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    folder = tmp_path_factory.mktemp("pretrained")
    return Pretrained(tiny_encoder(folder / "tiny"), folder / "cache")


@pytest.fixture(scope="module")
def pieces(pretrained: Pretrained) -> Bags:
    return Reader("text", None, pretrained.tokenizer).read(SAID)[1][PIECES]


@given(st.integers(0, 3 * WINDOW))
def test_windows_hold_every_piece_once_between_the_marks(size: int) -> None:
    body = np.arange(10, 10 + size, dtype=np.int32)

    parts = windows(np.r_[np.int32(1), body, np.int32(2)])

    assert np.concatenate([part[1:-1] for part in parts]).tolist() == body.tolist()
    assert all((part[0], part[-1]) == (1, 2) and len(part) <= WINDOW for part in parts)


def test_a_passage_has_the_same_vector_alone_and_in_a_batch(pretrained: Pretrained, pieces: Bags) -> None:
    embedder = Embedder.load(pretrained.graph)

    batch = embedder.vectors(pieces)

    alone = [embedder.vectors(pieces.slice(at, at + 1)) for at in range(len(pieces))]
    assert (np.concatenate(alone) == batch).all()


def test_the_float32_graph_gives_the_vectors_of_torch(pretrained: Pretrained, pieces: Bags, tmp_path: Path) -> None:
    network = MeanPooled(pretrained.name).eval()
    write_graph(tmp_path / "exact.onnx", network)

    found = Embedder.load(tmp_path / "exact.onnx").vectors(pieces)

    for at, vector in enumerate(found):
        parts = windows(pieces.slice(at, at + 1).ids)
        with torch.inference_mode():
            expected = sum(len(part) * network(torch.from_numpy(part[None]))[0] for part in parts)
        assert np.abs(vector - expected.numpy() / sum(map(len, parts))).max() < 1e-5


def test_a_vector_is_computed_once(pretrained: Pretrained, pieces: Bags, tmp_path: Path) -> None:
    cache, told = VectorCache(tmp_path), list[tuple[int, int]]()

    first = cache.vectors(pretrained.graph, pieces.slice(0, 2), report=lambda *read: told.append(read))
    both = cache.vectors(pretrained.graph, pieces, report=lambda *read: told.append(read))

    assert told == [(2, 2), (3, 3)]  # two halves of the long text, and one word
    assert (both[:2] == first).all()
    assert (both == Embedder.load(pretrained.graph).vectors(pieces)).all()


def test_distilled_vectors_are_made_once_and_marks_are_zero(pretrained: Pretrained) -> None:
    table = pretrained.distilled(8)

    assert table.shape == (len(pretrained_words(pretrained)), 8)
    assert (table[[2, 3]] == 0).all()  # [CLS] and [SEP]
    assert np.linalg.norm(table[10:], axis=1).min() > 0
    assert (pretrained.distilled(8) == table).all()


def test_vectors_larger_than_the_encoders_states_are_refused(pretrained: Pretrained) -> None:
    with pytest.raises(ValueError, match=r"fit\.static_size is 33; .* at most 32"):
        pretrained.distilled(33)


def pretrained_words(pretrained: Pretrained) -> list[str]:
    return (Path(pretrained.name) / "vocab.txt").read_text(encoding="utf-8").splitlines()
