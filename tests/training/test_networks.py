"""Every network of the registry: one row each."""

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rtdl_num_embeddings import PeriodicEmbeddings as PublishedEmbeddings

from tests.training.conftest import behaviour_spec, payments, text_spec, texts, tiny_encoder, write_run
from training.benign import own_suites, read_contrasts, read_suite
from training.data import UNKNOWN, DetectorData
from training.detector import DetectorSpec
from training.encoder import Encoder
from training.module import DetectorModule, masked_loss
from training.networks.registry import NETWORKS, build_network
from training.networks.tabular import FREQUENCY_SCALE, NUM_FREQUENCIES, PeriodicEmbeddings
from training.networks.text import NgramRegression, TextNetwork, inverse_document_frequency, worst
from training.reader import Bags
from training.scorer import Table

CASES = {
    "ngram": (text_spec, texts, {}),
    "static": (text_spec, texts, {"static_size": 16}),
    "encoder": (text_spec, texts, {"trainable_layers": 1}),
    "average": (text_spec, texts, {"members": ["ngram", "static", "encoder"], "static_size": 16}),
    "behaviour": (behaviour_spec, payments, {}),
}


def data_of(folder: Path, spec: DetectorSpec, rows: pa.Table) -> DetectorData:
    return DetectorData(
        write_run(folder / "run", spec, rows=rows) / "training_set.parquet", spec, cache=folder / "cache"
    )


def test_every_network_is_tried() -> None:
    assert set(CASES) == set(NETWORKS)


@pytest.mark.parametrize("name", CASES)
def test_a_network_learns_a_few_rows_by_heart(name: str, tmp_path: Path) -> None:
    make_spec, make_rows, changes = CASES[name]
    spec = make_spec(network=name, pretrained=tiny_encoder(tmp_path / "tiny"), **changes)
    data = data_of(tmp_path, spec, make_rows(100))
    torch.manual_seed(0)
    network = build_network(spec, data.encoder)
    if isinstance(network, TextNetwork):
        network.start_from(data.train.inputs, data.shares, data.pretrained)
    batch = data.train.batch(np.arange(32))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    for _ in range(200):
        optimizer.zero_grad()
        each_HBL = [worst(logits_PL, batch["owners_P"], num_rows=32) for logits_PL in network.each(batch)]
        torch.stack([masked_loss(one, batch["labels_BL"], batch["weights_B"]) for one in each_HBL]).mean().backward()
        optimizer.step()
    logits_BL = worst(network(batch), batch["owners_P"], num_rows=32)
    loss = masked_loss(logits_BL, batch["labels_BL"], batch["weights_B"])

    assert logits_BL.shape == (32, len(spec.labels))
    assert loss < 0.1
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


def test_a_bag_of_n_grams_weighs_the_same_in_training_and_in_serving() -> None:
    spec = text_spec()
    network = NgramRegression(spec, Encoder.fit(texts(10), spec))
    torch.nn.init.normal_(network.weight)
    torch.nn.init.uniform_(network.idf)
    network.pivot = torch.tensor([3.0])
    bags = Bags.of(np.array([2, 3, 9, 1, 7]), np.array([3, 0, 2]))
    rows, idf = (table.detach().numpy() for table in (network.weight, network.idf))

    trained = network({"ngrams": torch.from_numpy(bags.ids), "ngrams_offsets_P": torch.from_numpy(bags.bounds[:-1])})
    served = Table(rows, idf, pivot=3.0).pool(bags)

    expected = [idf[ids, 0] @ rows[ids] / (1.5 + np.linalg.norm(idf[ids]) / 2) for ids in ([2, 3, 9], [1, 7])]
    assert np.allclose(served[[0, 2]], expected, atol=1e-6)
    assert np.allclose(trained.detach(), served, atol=1e-6)
    assert (served[1] == 0).all()


def test_an_n_gram_that_one_text_alone_holds_counts_for_nothing_and_a_rare_one_for_more_than_a_common_one() -> None:
    bags = Bags.of(np.array([0, 0, 1, 1, 2, 1, 2, 1]), np.array([2, 3, 2, 1]))

    idf = inverse_document_frequency(bags, 4)[:, 0]

    assert idf.tolist() == pytest.approx([0, 1 + np.log(5 / 4), 1 + np.log(5 / 3), 0])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_record_scores_as_its_worst_passage(sizes: list[int], random: Random) -> None:
    logits = torch.tensor([[random.gauss(0, 3) for _ in range(2)] for _ in range(sum(sizes))])
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

    found = worst(logits, owners, num_rows=len(sizes))

    assert torch.equal(found, torch.stack([part.amax(0) for part in logits.split(sizes)]))


def test_a_label_that_nobody_knows_may_count_a_little_as_benign() -> None:
    logits, labels, weights = torch.ones(1, 2), torch.tensor([[1.0, -1.0]]), torch.ones(1)

    masked, weak = (masked_loss(logits, labels, weights, assumed_L=share) for share in (0.0, 0.2))

    benign = torch.nn.functional.softplus(torch.tensor(1.0))
    assert torch.isclose(weak - masked, 0.2 * benign / 2)


def test_texts_of_a_benign_suite_are_shown_as_benign_beside_what_breaks_a_rule_in_their_words(tmp_path: Path) -> None:
    plain = data_of(tmp_path / "plain", text_spec(), texts(100))
    spec = text_spec(benign_suites=["homonyms"])
    spec = spec.model_copy(update={"labels": [*spec.labels, "any_violation"], "promises": {}})
    rows = texts(100).append_column("any_violation", pa.nulls(100, pa.int8()))
    data = data_of(tmp_path / "more", spec, rows)

    added = data.train.labels[len(plain.train.labels) :]
    is_contrast = added[:, spec.labels.index("any_violation")] == 1

    assert (~is_contrast).sum() == len(read_suite("homonyms", None)) > 100
    assert (added[~is_contrast] == 0).all()
    assert is_contrast.sum() == len(read_contrasts("homonyms")[0]) > 50
    assert (added[is_contrast][:, :-1] == UNKNOWN).all()
    assert len(data.validation.labels) == len(plain.validation.labels)


def test_no_text_is_benign_in_one_suite_and_breaks_a_rule_in_another() -> None:
    benign = {text for name in own_suites() for text in read_suite(name, None)}
    harmful = {text for name in own_suites() for text in read_contrasts(name)[0]}

    assert harmful
    assert not benign & harmful


def test_what_nobody_judged_is_assumed_benign_by_heads_on_vectors_alone(tmp_path: Path) -> None:
    members = {"network": "average", "members": ["ngram", "static"], "pretrained": tiny_encoder(tmp_path / "tiny")}
    plain, assuming = (text_spec(**members, **more) for more in ({}, {"assumed_benign": {"fraud_spam": 0.5}}))
    data = data_of(tmp_path, plain, texts(100))
    network = build_network(plain, data.encoder)
    batch = data.train.batch(np.arange(32))
    batch["labels_BL"] = torch.full_like(batch["labels_BL"], UNKNOWN)
    each = list(zip(network.head.heads, network.each(batch), strict=True))

    masked, weak = (
        [DetectorModule(network, spec.fit, labels=spec.labels)._loss(head, logits, batch) for head, logits in each]
        for spec in (plain, assuming)
    )

    assert [loss.item() for loss in masked] == [0, 0]
    assert [loss.item() > 0 for loss in weak] == [False, True]


def test_only_a_label_of_the_detector_is_assumed() -> None:
    spec = text_spec().model_dump()
    spec["fit"]["assumed_benign"] = {"fraud_span": 0.1}

    with pytest.raises(ValueError, match=r"fit.assumed_benign has \['fraud_span'\]"):
        DetectorSpec.model_validate(spec)


def test_a_suite_cannot_be_learned_and_judge(tmp_path: Path) -> None:
    spec = text_spec(benign_suites=["homonyms"]).model_dump()
    spec["gate"]["benign_suites"] = {"homonyms": 0.1}

    with pytest.raises(ValueError, match=r"share \['homonyms'\]"):
        DetectorSpec.model_validate(spec)


def test_an_unknown_label_moves_nothing() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)

    masked_loss(logits, torch.tensor([[1.0, -1.0], [-1.0, 0.0]]), torch.tensor([1.0, 2.0])).backward()

    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False], [False, True]]
    assert logits.grad[1, 1] == -2 * logits.grad[0, 0]


def test_periodic_embeddings_are_those_of_the_library() -> None:
    ours = PeriodicEmbeddings(5, 16)
    published = PublishedEmbeddings(
        5, 16, n_frequencies=NUM_FREQUENCIES, frequency_init_scale=FREQUENCY_SCALE, lite=True
    )
    published.load_state_dict(
        {
            "periodic.weight": ours.frequencies.data,
            "linear.weight": ours.linear.weight.data,
            "linear.bias": ours.linear.bias.data,
        }
    )
    numbers = torch.randn(7, 5)

    assert torch.equal(ours(numbers), published(numbers))
