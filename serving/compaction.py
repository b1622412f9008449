"""The way back: sealed segments of the decision log become decisions of the lake, and their events arrive in its inbox.

Exactly once, killed at any moment: what a segment becomes lies under the segment's own name, so doing it again replaces
it by the same; the segment goes when both are on disk. An event that was decided twice is one event, by its id.

The text of a request is decrypted here where its policy keeps texts, since detectors are trained on it, and is absent
otherwise; a decision in the lake never holds it.
"""

import fcntl
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.lake import Lake, day_of, schema_of
from feature_repo.tables import DECISIONS, EVENT_TABLES
from serving.durable import sync_file, sync_folder
from serving.record import Record, decode, encode
from serving.segments import begun_us, recover, waiting, whole
from serving.vault import Vault
from serving.verdict import TEXT

_AT_ONCE = 4  # segments of up to 64 MiB that are held in memory together; 57,000 decisions each


@dataclass
class Compacted:
    """What one compaction brought; `num_known` events were in the lake already, `num_too_old` before its first day."""

    num_segments: int = 0
    num_decisions: int = 0
    num_events: Counter[str] = field(default_factory=Counter)  # by table
    num_known: int = 0
    num_too_old: int = 0
    damaged: list[str] = field(default_factory=list)  # segments that stay, since a record in them was altered


def compact(folder: Path, lake: Lake, vault: Vault, *, days: Iterable[date], first_day: date) -> Compacted:
    """Move what was logged on some days into the lake; a day that is not over can be compacted again and again.

    Raises UnknownSchema where a newer version wrote a record; its segment waits with those behind it, and what was
    moved before it stays moved.
    """
    done = Compacted()
    if not folder.exists():
        return done
    with _alone(folder):
        recover(folder)
        there = waiting(folder)
        segments = [path for day in sorted(days) for path in there.get(day, [])]
        for at in range(0, len(segments), _AT_ONCE):
            _move(segments[at : at + _AT_ONCE], lake, vault, first_day=first_day, done=done)
    return done


def _move(segments: Sequence[Path], lake: Lake, vault: Vault, *, first_day: date, done: Compacted) -> None:
    read = {path: _read(path, done) for path in segments}
    known = {table: _known(lake, table, _ids(read.values(), table)) for table in EVENT_TABLES}
    for path, records in read.items():
        if records is None:
            continue
        for (table, day), events in _new_events(records, known, vault, first_day=first_day, done=done).items():
            rows = pa.Table.from_pylist(events, schema=schema_of(EVENT_TABLES[table]))
            sync_file(lake.write("inbox", table, rows, day=day, name=f"served-{path.stem}"), root=lake.root)
            done.num_events[table] += len(events)
        rows = pa.Table.from_pylist([_row(record) for record in records], schema=schema_of(DECISIONS))
        logged = day_of(begun_us(path))
        sync_file(lake.write("log", DECISIONS.name, rows, day=logged, name=path.stem), root=lake.root)
        path.unlink()
        sync_folder(path.parent)
        done.num_segments += 1
        done.num_decisions += len(records)


def _read(path: Path, done: Compacted) -> list[Record] | None:
    payloads = whole(path)
    if payloads is None:
        done.damaged.append(path.name)
        return None
    return [decode(payload) for payload in payloads]


def _ids(read: Iterable[list[Record] | None], table: str) -> pa.Array:
    ids = {r.event["event_id"] for records in read for r in records or () if r.table == table}
    return pa.array(sorted(ids), pa.string())


def _known(lake: Lake, table: str, asked: pa.Array) -> set[str]:
    """Which of these events wait in the inbox or are in the lake; looked for in the order in which they move."""
    known: set[str] = set()
    if not len(asked):
        return known
    for file in lake.folder("inbox", table).glob("day=*/*.parquet"):
        known.update(_ids_in(file, asked))
    with lake.connect() as connection:
        connection.register("asked", pa.table({"event_id": asked}))
        found = connection.execute(f"SELECT event_id FROM asked SEMI JOIN {table} USING (event_id)").fetchall()  # noqa: S608
    return known | {row[0] for row in found}


def _ids_in(file: Path, asked: pa.Array) -> list[str]:
    """Of a file that anybody may have put there; what cannot be read will be refused when it is validated."""
    try:
        ids = pq.read_table(file, columns=["event_id"], partitioning=None)["event_id"]
    except (pa.ArrowException, FileNotFoundError, KeyError):
        return []
    return ids.filter(pc.is_in(ids, value_set=asked)).to_pylist() if ids.type == pa.string() else []


def _new_events(
    records: Sequence[Record], known: dict[str, set[str]], vault: Vault, *, first_day: date, done: Compacted
) -> dict[tuple[str, date], list[dict[str, Any]]]:
    """The events that the lake does not know, as rows by table and day; `known` learns them."""
    rows: dict[tuple[str, date], dict[str, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        event = record.event
        day = day_of(event["event_us"])
        mine = rows[record.table, day]
        if event["event_id"] in known[record.table]:
            _keep_text(mine.get(event["event_id"]), record, vault)
            done.num_known += 1
        elif day < first_day:
            done.num_too_old += 1
        else:
            known[record.table].add(event["event_id"])
            mine[event["event_id"]] = dict(event)
            _keep_text(mine[event["event_id"]], record, vault)
    return {key: list(events.values()) for key, events in rows.items() if events}


def _keep_text(row: dict[str, Any] | None, record: Record, vault: Vault) -> None:
    """One policy that keeps the text is enough."""
    if row is not None and record.text is not None and row.get(TEXT) is None:
        row[TEXT] = vault.open(record.text)


def _row(record: Record) -> dict[str, Any]:
    """A decision as it lies in the lake."""
    event = record.event
    return {
        "decision_id": record.decision_id,
        "at_us": record.at_us,
        "event_us": event["event_us"],
        "event_table": record.table,
        "event_id": event["event_id"],
        "account_id": event.get("account_id"),
        "detector": record.detector,
        "release": record.release,
        "policy": record.policy.name,
        "policy_version": record.policy.version,
        "policy_digest": record.policy.digest,
        "role": record.role,
        "action": record.action,
        "labels": record.labels,
        "scores": None if record.scores is None else list(record.scores.items()),
        "degraded": record.degraded,
        "caller": record.caller,
        "record": encode(msgspec.structs.replace(record, text=None)).decode(),
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One compaction at a time; a killed one frees the lock by dying."""
    with (folder / ".compaction").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
