"""Adam beside tables: moves only what a batch touched, obeys a schedule, and goes on from a checkpoint."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from training.optimizers import LEAST_CURVATURE, AdamWithTables, PenalisedDescent

RATE = 0.1
CURVATURE = [0.25, 0.05, 0.0]  # of the labels; a label without a violation is as flat as can be
STEPS = torch.tensor([RATE / 0.25, RATE / 0.05, RATE / LEAST_CURVATURE])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.EmbeddingBag(8, 3, mode="mean", sparse=True)
        self.head = nn.Linear(3, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids[None]))


def optimizer_of(model: Model, **regression: object) -> AdamWithTables:
    tables = [{"params": [model.table.weight], "curvature": CURVATURE, **regression}]
    return AdamWithTables([{"params": list(model.head.parameters())}], tables, learning_rate=RATE)


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


@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_step_is_that_of_adam_on_the_head_and_a_penalised_one_on_each_column(*, is_sparse: bool) -> None:
    model, other = Model(), Model()
    model.table.sparse, other.table.sparse = is_sparse, False

    step(model, optimizer_of(model, penalty=0.01), [2, 5, 5])
    adam = torch.optim.AdamW(other.head.parameters(), lr=RATE)
    other(torch.tensor([2, 5, 5])).sum().backward()
    gradient = other.table.weight.grad
    assert gradient is not None
    adam.step()

    assert torch.allclose(model.table.weight, other.table.weight * (1 - 0.01 * STEPS) - STEPS * gradient)
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


def test_penalised_descent_finds_what_a_solver_for_logistic_regression_finds() -> None:
    rng, penalty = np.random.default_rng(0), 0.01
    features = rng.normal(size=(400, 5))
    verdicts = np.column_stack([features[:, at] + rng.normal(size=400) > cut for at, cut in enumerate((0.0, 2.0))])
    table = nn.Parameter(torch.zeros(5, 2))
    curvature = (verdicts.mean(0) * (1 - verdicts.mean(0))).tolist()
    optimizer = PenalisedDescent([{"params": [table], "curvature": curvature, "penalty": penalty}], learning_rate=0.05)

    for _ in range(2000):
        optimizer.zero_grad()
        losses = binary_cross_entropy_with_logits(
            torch.from_numpy(features).float() @ table, torch.from_numpy(verdicts).float(), reduction="none"
        )
        losses.mean(0).sum().backward()
        optimizer.step()

    for column, found in zip(verdicts.T, table.detach().T, strict=True):
        solver = LogisticRegression(C=1 / penalty / 400, fit_intercept=False).fit(features, column)
        assert found.numpy() == pytest.approx(solver.coef_[0], abs=1e-3)
