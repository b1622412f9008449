"""Spoils a day that lies in the inbox, in the ways in which batches go bad: for tests and for showing the checks."""

from collections.abc import Callable, Mapping
from datetime import date
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.lake import DAY_US, Lake
from feature_repo.tables import TABLES

FUTURE_US = 20_000 * DAY_US  # some fifty years ahead
VOLUME = 10


def poison(lake: Lake, kind: str, *, table: str, day: date) -> None:
    """Replace the batch of one day in the inbox by a bad one; `kind` is a key of KINDS."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    if kind == "unknown_label" and table != "labels":
        raise ValueError(f"table is {table!r}; only labels can hold an unknown label")
    rows = pq.read_table(lake.folder("inbox", table, day) / "part.parquet", partitioning=None)
    lake.write("inbox", table, KINDS[kind](rows, table), day=day)


def _wrong_type(rows: pa.Table, table: str) -> pa.Table:
    """A moment arrives as text."""
    moment = _moment(table)
    return _replaced(rows, moment, rows[moment].cast(pa.string()))


def _nulls(rows: pa.Table, table: str) -> pa.Table:
    """Every fiftieth row has no id of its event, and at least the first."""
    del table
    lost = pa.array(np.arange(len(rows)) % 50 == 0)
    return _replaced(rows, "event_id", pc.if_else(lost, None, rows["event_id"]))


def _duplicate_ids(rows: pa.Table, table: str) -> pa.Table:
    """The first twentieth comes twice."""
    del table
    return pa.concat_tables([rows, rows.slice(0, 1 + len(rows) // 20)])


def _future(rows: pa.Table, table: str) -> pa.Table:
    """The clock of the sender is decades ahead."""
    for name in ("arrived_us", "event_us", "known_us"):
        if name in TABLES[table].columns:
            rows = _replaced(rows, name, pc.add(rows[name], FUTURE_US))
    return rows


def _unknown_label(rows: pa.Table, table: str) -> pa.Table:
    """A label that no policy knows."""
    del table
    return _replaced(rows, "label", pa.repeat("mystery", len(rows)))


def _volume(rows: pa.Table, table: str) -> pa.Table:
    """Ten times as many rows as usual, each keeping the contract."""
    del table
    copies = [
        _replaced(rows, "event_id", pc.binary_join_element_wise(rows["event_id"], f"x{i}", "-")) for i in range(VOLUME)
    ]
    return pa.concat_tables(copies)


def _moment(table: str) -> str:
    return "known_us" if table == "labels" else "event_us"


def _replaced(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, values)


KINDS: Mapping[str, Callable[[pa.Table, str], pa.Table]] = MappingProxyType(
    {
        "wrong_type": _wrong_type,
        "nulls": _nulls,
        "duplicate_ids": _duplicate_ids,
        "future": _future,
        "unknown_label": _unknown_label,
        "volume": _volume,
    }
)
