"""Adam beside tables: moves only what a batch touched, obeys a schedule, and goes on from a checkpoint."""

import copy

import torch
from torch import Tensor, nn

from training.optimizers import AdamWithTables

RATE = 0.1


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.EmbeddingBag(8, 3, mode="mean", sparse=True)
        self.head = nn.Linear(3, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids[None]))


def optimizer_of(model: Model) -> AdamWithTables:
    return AdamWithTables(
        [{"params": list(model.head.parameters())}], [{"params": [model.table.weight]}], learning_rate=RATE
    )


def step(model: Model, optimizer: AdamWithTables, ids: list[int]) -> None:
    optimizer.zero_grad()
    model(torch.tensor(ids)).sum().backward()
    optimizer.step()


def test_a_step_moves_the_head_and_the_touched_rows_alone() -> None:
    model = Model()
    before, optimizer = copy.deepcopy(model), optimizer_of(model)

    step(model, optimizer, [2, 5])

    moved = (model.table.weight != before.table.weight).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [2, 5]
    assert (model.head.weight != before.head.weight).all()


def test_a_step_is_that_of_adam_on_the_head_and_plain_descent_on_the_table() -> None:
    model, other = Model(), Model()
    other.table.sparse = False

    step(model, optimizer_of(model), [2, 5])
    adam = torch.optim.AdamW(other.head.parameters(), lr=RATE)
    other(torch.tensor([2, 5])).sum().backward()
    gradient = other.table.weight.grad
    assert gradient is not None
    adam.step()

    assert torch.allclose(model.table.weight, other.table.weight - RATE * gradient)
    assert torch.allclose(model.head.weight, other.head.weight)


def test_a_schedule_moves_both_rates() -> None:
    optimizer = optimizer_of(Model())

    torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, 10 * RATE], total_steps=10)

    dense, tables = (part.param_groups[0]["lr"] for part in optimizer.within)
    assert 0 < dense < RATE
    assert tables == 10 * dense


def test_a_restored_optimizer_goes_on_with_the_same_bits() -> None:
    whole, killed = Model(), Model()
    optimizer, first = optimizer_of(whole), optimizer_of(killed)
    for ids in ([1, 2], [2, 3]):
        step(whole, optimizer, ids)
        step(killed, first, ids)

    stored = copy.deepcopy(first.state_dict())
    second = optimizer_of(killed)
    second.load_state_dict(stored)
    for ids in ([2, 4], [1, 1]):
        step(whole, optimizer, ids)
        step(killed, second, ids)

    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), killed.parameters(), strict=True))
