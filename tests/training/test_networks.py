"""Every network of the registry: one row each."""

import pytest
import torch
from rtdl_num_embeddings import PeriodicEmbeddings as PublishedEmbeddings

from tests.training.conftest import behaviour_spec, payments, text_spec, texts
from training.data import Examples
from training.encoder import Encoder
from training.module import masked_loss
from training.networks.registry import NETWORKS, build_network
from training.networks.tabular import FREQUENCY_SCALE, NUM_FREQUENCIES, PeriodicEmbeddings

CASES = {"ngram": (text_spec(), texts(100)), "behaviour": (behaviour_spec(), payments(100))}


def test_every_network_is_tried() -> None:
    assert set(CASES) == set(NETWORKS)


@pytest.mark.parametrize("name", CASES)
def test_a_network_learns_a_few_rows_by_heart(name: str) -> None:
    spec, rows = CASES[name]
    torch.manual_seed(0)
    encoder = Encoder.fit(rows, spec)
    network = build_network(spec, encoder)
    examples = Examples.of(rows.slice(0, 32), spec, encoder=encoder)
    batch = examples.batch(torch.arange(32).numpy())
    labels_BL, weights_B = batch.pop("labels_BL"), batch.pop("weights_B")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    for _ in range(150):
        optimizer.zero_grad()
        loss = masked_loss(network(**batch), labels_BL, weights_B)
        loss.backward()
        optimizer.step()

    assert network(**batch).shape == (32, len(spec.labels))
    assert loss < 0.1
    assert all(parameter.grad is not None for parameter in network.parameters())


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
