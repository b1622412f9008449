"""Small lakes of generated records: ties, duplicates, late facts, nulls and edges of windows on purpose."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from feature_repo.lake import Lake, day_of
from feature_repo.tables import TABLES
from feature_repo.view import DAY, HOUR, MINUTE

START = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC
_ARROW = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "TINYINT": pa.int8(),
}

# Moments meet on grains and on whole spans apart, so that windows have events exactly on their edges.
moment = st.builds(
    lambda days, steps, us: START + days * DAY + steps * 15 * MINUTE + us,
    st.sampled_from([0, 1, 6, 7, 8, 29, 30, 31]),
    st.integers(0, 3),
    st.sampled_from([-1, 0, 0, 1]),
)
delay = st.sampled_from([0, 0, 0, MINUTE, DAY, 2 * DAY, 2 * DAY + 1, 9 * DAY])
_ids = {"account_id": "a", "ip": "i", "card_id": "c", "merchant_id": "m", "device_id": "d"}


def _id(name: str, *, is_nullable: bool = True) -> st.SearchStrategy[str | None]:
    known = st.sampled_from([f"{_ids[name]}{i}" for i in range(3)])
    return st.none() | known if is_nullable else known


def _events(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({"event_us": moment, "delay_us": delay, **columns})
    return st.lists(row, max_size=14)


_requests = _events(account_id=_id("account_id"), ip=_id("ip"), num_tokens=st.integers(0, 9))
_payments = _events(
    account_id=_id("account_id"),
    card_id=_id("card_id"),
    merchant_id=_id("merchant_id"),
    ip=_id("ip"),
    amount=st.integers(0, 100_000).map(lambda cents: cents / 100),
    verdicts=st.lists(st.tuples(st.sampled_from([0, HOUR, DAY, 7 * DAY, 91 * DAY]), st.integers(0, 1)), max_size=2),
)
_accounts = _events(
    account_id=_id("account_id", is_nullable=False),
    kind=st.sampled_from(["signup", "daily"]),
    ip=_id("ip"),
    device_id=_id("device_id"),
    card_id=_id("card_id"),
    email_domain=st.sampled_from([None, "a.example", "b.example"]),
    plan=st.sampled_from([None, "free", "paid"]),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Rows per table, as the lake's contract wants them."""
    drawn = {"requests": draw(_requests), "payments": draw(_payments), "accounts": draw(_accounts)}
    events = {name: [_event(name, i, row) for i, row in enumerate(rows)] for name, rows in drawn.items()}
    labels = [
        label_row(f"payments-{i}", row["event_us"], row["event_us"] + delay_us, value)
        for i, row in enumerate(drawn["payments"])
        for delay_us, value in row["verdicts"]
    ]
    return {**events, "labels": labels}


def _event(table: str, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    event = {"event_id": f"{table}-{number}", "arrived_us": row["event_us"] + row["delay_us"], **row}
    if table == "requests":
        event |= {"kind": "prompt", "text": "-"}
    return {name: event[name] for name in TABLES[table].columns}


def label_row(event_id: str, event_us: int, known_us: int, value: int, **changes: Any) -> dict[str, Any]:
    """A fraud verdict about a payment."""
    return {
        "event_id": event_id, "event_table": "payments", "event_us": event_us, "known_us": known_us, "label": "fraud",
        "value": value, "source": "reviewer", "sampling_probability": 1.0, "split": None, **changes,
    }  # fmt: skip


def write(root: Path, rows_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> Lake:
    """A lake that holds the rows, each in its day."""
    lake = Lake(root, memory_limit="1GB")
    for table, rows in rows_of.items():
        dated = "known_us" if table == "labels" else "event_us"
        for day in sorted({day_of(row[dated]) for row in rows}):
            of_day = [row for row in rows if day_of(row[dated]) == day]
            lake.write("events", table, to_arrow(table, of_day), day=day)
    return lake


def to_arrow(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows in the types of the contract."""
    schema = pa.schema([(name, _ARROW[column.type]) for name, column in TABLES[table].columns.items()])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
