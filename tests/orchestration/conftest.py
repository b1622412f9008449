"""A small lake, and payments to put into it."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.lake import DAY_US, Lake, start_us
from serving.vault import Vault

FIRST = date(2026, 1, 1)


def payments(day: date, num_rows: int = 200, *, seed: int = 1, prefix: str = "p") -> pa.Table:
    rng = np.random.default_rng([seed, day.toordinal()])
    event_us = start_us(day) + np.sort(rng.integers(0, DAY_US, num_rows))
    return pa.table(
        {
            "event_id": [f"{prefix}-{day}-{i}" for i in range(num_rows)],
            "event_us": event_us,
            "arrived_us": event_us + 1_000_000,
            "account_id": [f"a{i % 20}" for i in range(num_rows)],
            "card_id": [f"c{i % 25}" for i in range(num_rows)],
            "merchant_id": [f"m{i % 7}" for i in range(num_rows)],
            "ip": pa.nulls(num_rows, pa.string()),
            "amount": rng.uniform(1, 100, num_rows),
        }
    )


def labels(day: date, *, label: str = "fraud", num_rows: int = 10) -> pa.Table:
    known_us = [start_us(day) + i for i in range(num_rows)]
    return pa.table(
        {
            "event_id": [f"p-{day}-{i}" for i in range(num_rows)],
            "event_table": ["payments"] * num_rows,
            "event_us": known_us,
            "known_us": known_us,
            "label": [label] * num_rows,
            "value": pa.array([i % 2 for i in range(num_rows)], pa.int8()),
            "source": ["chargeback"] * num_rows,
            "sampling_probability": [1.0] * num_rows,
            "split": pa.nulls(num_rows, pa.string()),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", memory_limit="1GB")


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "keys")


@pytest.fixture
def arrive(lake: Lake) -> Callable[..., None]:
    """Put payments of a day into the inbox, by default good ones."""

    def put(day: date, rows: pa.Table | None = None) -> None:
        lake.write("inbox", "payments", payments(day) if rows is None else rows, day=day)

    return put
