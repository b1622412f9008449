"""Turns columns of numbers into rows that keep the lake's contract, each with its truth beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.lake import ARROW, DAY_US
from feature_repo.tables import TABLES
from orchestration.world.campaigns import Cast
from orchestration.world.population import Role
from orchestration.world.scale import Scale

LATE_SHARE = 0.01  # of events reach the lake one hour to three days after they happened
HOUR_US = DAY_US // 24


@dataclass(frozen=True)
class Day:
    """One day of the world: who exists and which parts they play."""

    scale: Scale
    number: int
    accounts: np.ndarray
    cast: Cast

    def stream(self, name: str) -> np.random.Generator:
        """The chance of one part of this day."""
        return self.scale.stream(name, self.number)

    @property
    def start_us(self) -> int:
        """The first microsecond of the day."""
        return self.scale.start_us(self.number)


@dataclass(frozen=True)
class Happened:
    """Events of one table on one day, and for each its truth: labels, campaign, stratum."""

    table: str
    rows: pa.Table
    truth: pa.Table

    def arrived(self, before_us: int | None) -> "Happened":
        """What had reached the lake before a moment; all of it where none is given."""
        if before_us is None:
            return self
        is_there = pc.less(self.rows["arrived_us"], before_us)
        return Happened(self.table, self.rows.filter(is_there), self.truth.filter(is_there))


def happened(
    table: str, day: Day, event_us: np.ndarray, *, columns: Mapping[str, pa.Array], truth: Mapping[str, object]
) -> Happened:
    """Order the events of a day by time, name them, and let a few arrive late."""
    rng = day.stream(f"arrival-{table}")
    order = np.argsort(event_us, kind="stable")
    event_us = event_us[order]
    late = np.where(rng.random(len(order)) < LATE_SHARE, rng.uniform(1, 72, len(order)) * HOUR_US, 0).astype(np.int64)
    event_id = names(f"{table[0]}{day.scale.date_of(day.number):%Y%m%d}-", np.arange(len(order)))
    known = {"event_id": event_id, "event_us": pa.array(event_us), "arrived_us": pa.array(event_us + late)}
    take = pa.array(order)
    rows = pa.table({**known, **{name: pa.array(values).take(take) for name, values in columns.items()}})
    facts = pa.table({name: pa.array(values).take(take) for name, values in truth.items()})
    facts = facts.add_column(0, "event_id", event_id).add_column(1, "event_us", known["event_us"])
    return Happened(table, in_contract(table, rows), facts)


def in_contract(table: str, rows: pa.Table) -> pa.Table:
    """The rows with the columns and types of the lake's table."""
    columns = TABLES[table].columns
    return rows.select(list(columns)).cast(pa.schema([(name, ARROW[c.type]) for name, c in columns.items()]))


def names(prefix: str, numbers: np.ndarray) -> pa.Array:
    """A prefix and a number each."""
    return pc.binary_join_element_wise(prefix, pa.array(numbers.astype(np.int64)).cast(pa.string()), "")


def addresses(numbers: np.ndarray) -> pa.Array:
    """Private IPv4 addresses; neighbouring numbers do not look like neighbours."""
    spread = (numbers.astype(np.int64) * 2_654_435_761) % (1 << 24)
    parts = [names("", spread >> shift & 255) for shift in (16, 8, 0)]
    return pc.binary_join_element_wise("10", *parts, ".")


def choose(options: tuple[str, ...], codes: np.ndarray) -> pa.Array:
    """The option of each code."""
    return pa.array(options).take(pa.array(codes.astype(np.int64)))


def campaigns(role: np.ndarray, wave: np.ndarray) -> pa.Array:
    """The campaign to which each event belongs, such as `scraping-3`; null for none."""
    kinds = choose(tuple(r.name.lower() for r in Role), role)
    return pc.if_else(pa.array(role > 0), pc.binary_join_element_wise(kinds, names("", wave), "-"), None)
