"""Forgets an account: takes every row about it out of every place of the home, and says where there were any.

What cannot be taken out is named: weights that were trained with its rows, and files that nobody can read. Backups and
the files that an import came from lie outside the home; importing them again brings the account back.
"""

import csv
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq

from feature_repo.forget import forget_online
from feature_repo.lake import Lake, literal
from feature_repo.tables import ENTITIES, EVENT_TABLES
from orchestration import batches
from orchestration.batches import is_readable
from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from serving.compaction import compact
from serving.privacy import pseudonym
from serving.release import sealed_bundles
from serving.segments import ask_to_seal, begun_us, recover, waiting
from serving.vault import Vault

if TYPE_CHECKING:
    from rich.table import Table as RichTable

ENTITY = "account_id"
_OTHERS = tuple(name for name in ENTITIES if name != ENTITY)
_IS_THEIRS = f"CAST({ENTITY} AS VARCHAR) IN (FROM names)"
SEAL_S = 15.0  # a service seals at its next tick
_STALE_S = 600
_MAX_PASSES = 5  # a file may move from the inbox to the events while it is looked at


class StillWritten(RuntimeError):
    """A process goes on writing a segment that it was asked to seal, so what is in there cannot be forgotten yet."""


@dataclass
class Forgotten:
    """How many rows were removed, by place; and what is left, with the reason."""

    rows: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)

    def to_table(self) -> "RichTable":
        """For a terminal."""
        from rich.table import Table as RichTable

        table = RichTable("where", "rows removed", title="forgotten")
        for place, number in sorted(self.rows.items()):
            table.add_row(place, f"{number:,}")
        for reason in self.left:
            table.add_row("left", reason)
        return table


@dataclass(frozen=True)
class Rows:
    """A file that may hold rows about people; `table` tells whose event ids it holds where no column does."""

    file: Path
    place: str
    table: str


def forget(settings: Settings, account: str) -> Forgotten:
    """Remove an account from log, lake, features, online state, training sets, runs and searches; raises StillWritten.

    Doing it again, or after a kill or a failure, removes what is left, and says what is left again. What lies online
    goes first, while the lake can still tell what that is.
    """
    done, lake, vault = Forgotten(), settings.lake, Vault(settings.home / "keys")
    _bring_back(settings, vault, done)
    names = (account, pseudonym(account, vault))
    with lake.connect() as connection:
        _lay_names(connection, lake, names)
        mine = {ENTITY: names, **_only_theirs(connection)}
        if states := forget_online(settings.home, mine, redis=settings.redis):
            done.rows["online state"] = states
        for _ in range(_MAX_PASSES):
            if not sum([_take_out(connection, settings, rows, done) for rows in _everywhere(settings, lake)]):
                break
        _redact_reports(connection, lake, done)
    _sweep(lake)
    _count_again(settings)
    if any(place.startswith("quarantine/") for place in done.rows):
        done.left.append("Dagster's event log: the report of a refused batch may name ids of its events")
    done.left += _trained_with(settings)
    return done


def _bring_back(settings: Settings, vault: Vault, done: Forgotten) -> None:
    """Everything that was logged until now lies in the lake afterwards, where it can be taken out."""
    folder = settings.decisions
    if not folder.exists():
        return
    ask_to_seal(folder)
    asked_us, deadline = time.time_ns() // 1000, time.monotonic() + SEAL_S
    while recover(folder) or any(begun_us(path) <= asked_us for path in folder.glob("*.open")):
        if time.monotonic() > deadline:
            raise StillWritten(
                f"a segment of the log was not sealed within {SEAL_S:.0f} s by the process that writes it"
            )
        time.sleep(0.1)
    compacted = compact(folder, settings.lake, vault, days=waiting(folder), first_day=settings.first_day)
    done.left += [f"segment {name} was altered and cannot be read" for name in compacted.damaged]


def _lay_names(connection: duckdb.DuckDBPyConnection, lake: Lake, names: tuple[str, str]) -> None:
    """Create `names`, by which the account is known, `gone`, the ids of its events by table, and `alone`.

    That is what else is about it: cards, devices and the like that no event of anybody else mentions.
    """
    connection.execute("CREATE TABLE names (name VARCHAR); CREATE TABLE gone (event_table VARCHAR, event_id VARCHAR)")
    connection.execute("CREATE TABLE alone (entity VARCHAR, id VARCHAR)")
    connection.executemany("INSERT INTO names VALUES (?)", [[name] for name in names])
    files = [
        (table, file, columns)
        for table in EVENT_TABLES
        for zone in ("inbox", "events", "quarantine")
        for file in (lake.root / zone / table).rglob("*.parquet")
        if {ENTITY, "event_id"} <= (columns := _columns(file))
    ]
    for table, file, columns in files:
        connection.execute(f"INSERT INTO gone SELECT '{table}', event_id FROM {_scan(file)} WHERE {_IS_THEIRS}")  # noqa: S608
        for entity in columns & set(_OTHERS):
            mentioned = f"SELECT DISTINCT '{entity}', {entity} FROM {_scan(file)}"  # noqa: S608
            connection.execute(f"INSERT INTO alone {mentioned} WHERE {_IS_THEIRS} AND {entity} IS NOT NULL")
    for _, file, columns in files:
        for entity in columns & set(_OTHERS):
            mentioned = f"SELECT CAST({entity} AS VARCHAR) FROM {_scan(file)} WHERE NOT coalesce({_IS_THEIRS}, false)"  # noqa: S608
            connection.execute(f"DELETE FROM alone WHERE entity = '{entity}' AND id IN ({mentioned})")  # noqa: S608
    connection.execute("INSERT INTO gone SELECT event_table, event_id FROM decisions WHERE account_id IN (FROM names)")


def _only_theirs(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entity, id_ in connection.execute("SELECT DISTINCT entity, id FROM alone").fetchall():
        found.setdefault(entity, []).append(id_)
    return found


def _everywhere(settings: Settings, lake: Lake) -> Iterator[Rows]:
    """Features first: which of them are about nobody else is told by events, which must still be there after a kill."""
    for file in sorted(
        lake.root.glob("*/*/**/*.parquet"), key=lambda file: (_place(lake, file)[0] != "features", file)
    ):
        zone, table = _place(lake, file)
        yield Rows(file, f"{zone}/{table}", table.removesuffix("_truth"))
    tables = {name: detector.spec.events for name, detector in read_detectors(settings.defs).items()}
    for folder in (settings.training_sets, settings.runs, settings.searches):
        for file in sorted(folder.glob("*/*/**/*")):  # also in a run's folds, a search's trials, and half written
            if file.suffix in (".parquet", ".csv"):
                detector, made = file.relative_to(folder).parts[:2]
                yield Rows(file, f"{folder.name}/{detector}/{made}", tables.get(detector, ""))


def _place(lake: Lake, file: Path) -> tuple[str, str]:
    zone, table, *_ = file.relative_to(lake.root).parts
    return zone, table


def _take_out(connection: duckdb.DuckDBPyConnection, settings: Settings, rows: Rows, done: Forgotten) -> int:
    """Write a file again without the rows about the account, or remove it when nothing else is in it."""
    if not (about := _about(rows)):
        if not _is_read(rows.file) and (left := f"{rows.place}: {rows.file.name} is no Parquet"):
            done.left += [left] if left not in done.left else []
        return 0
    counted = f"SELECT count(*), count(*) FILTER ({about}) FROM {_scan(rows.file)}"  # noqa: S608
    [(num_rows, num_about)] = connection.execute(counted).fetchall()
    if not num_about:
        return 0
    _mark(settings, rows)
    if num_about == num_rows:
        rows.file.unlink(missing_ok=True)
    else:
        partial = rows.file.with_name(f".{rows.file.name}.forgetting")
        kept = f"SELECT * FROM {_scan(rows.file)} WHERE NOT coalesce({about}, false)"  # noqa: S608
        how = "FORMAT csv, HEADER" if rows.file.suffix == ".csv" else "FORMAT parquet, COMPRESSION zstd"
        connection.execute(f"COPY ({kept}) TO {literal(str(partial))} ({how})")
        os.replace(partial, rows.file)  # noqa: PTH105
    done.rows[rows.place] += num_about
    return int(num_about)


def _manifests(settings: Settings) -> Iterator[Path]:
    """What training sets say of themselves, and their copies that runs were trained with."""
    yield from settings.training_sets.glob("*/*/manifest.json")
    yield from settings.runs.glob("*/*/training_set.json")


def _mark(settings: Settings, rows: Rows) -> None:
    """Note, before a file of a training set or of a run changes, that rows of it are forgotten."""
    for path in _manifests(settings):
        if path.parent in rows.file.parents:
            _note(path, {"was_reduced": True})


def _count_again(settings: Settings) -> None:
    """Let a training set go on saying what it holds, also where this was killed right after rows of it had gone."""
    for path in _manifests(settings):
        if _was_reduced(path):
            file = path.with_name("data.parquet" if path.stem == "manifest" else f"{path.stem}.parquet")
            content = file.read_bytes() if file.exists() else b""
            num_rows = pq.read_metadata(file).num_rows if content else 0
            _note(path, {"num_rows": num_rows, "sha256": hashlib.sha256(content).hexdigest()})


def _was_reduced(manifest: Path) -> bool:
    return bool(json.loads(manifest.read_text(encoding="utf-8")).get("was_reduced"))


def _note(manifest: Path, facts: dict[str, Any]) -> None:
    said = json.loads(manifest.read_text(encoding="utf-8"))
    if said | facts != said:
        partial = manifest.with_name(f".{manifest.name}.forgetting")
        partial.write_text(json.dumps(said | facts, indent=1), encoding="utf-8")
        partial.replace(manifest)


def _sweep(lake: Lake) -> None:
    """Halves that killed writers left behind."""
    batches.sweep(lake)
    for left in (*lake.root.glob("*/*/day=*/.*"), *(lake.root / ".spill").rglob("*")):
        if left.is_file() and time.time() - left.stat().st_mtime > _STALE_S:
            left.unlink(missing_ok=True)


def _about(rows: Rows) -> str:
    """Which rows of a file are about the account, as SQL; empty where its columns cannot tell.

    Where nobody knows any more whose event ids a file holds, those of every table count.
    """
    columns, ways = _columns(rows.file), []
    if ENTITY in columns:
        ways.append(_IS_THEIRS)
    if {"event_table", "event_id"} <= columns:
        ways.append("(event_table, event_id) IN (FROM gone)")
    elif "event_id" in columns:
        ways.append(f"event_id IN (SELECT event_id FROM gone WHERE '{rows.table}' IN ('', event_table))")  # noqa: S608
    if not ways:
        others = sorted(columns & set(_OTHERS))
        ways += [f"{name} IN (SELECT id FROM alone WHERE entity = '{name}')" for name in others]  # noqa: S608
    return " OR ".join(f"coalesce({way}, false)" for way in ways)


def _scan(file: Path) -> str:
    if file.suffix == ".csv":
        return f"read_csv({literal(str(file))}, header = true, all_varchar = true)"
    return f"read_parquet({literal(str(file))}, hive_partitioning = false)"


def _columns(file: Path) -> set[str]:
    """Names of a file's columns; none of a file that is something else or is gone by now."""
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as lines:
                return set(next(csv.reader(lines), []))
        return set(pq.read_schema(file).names) if is_readable(file) else set()
    except FileNotFoundError:
        return set()


def _is_read(file: Path) -> bool:
    return file.suffix == ".csv" or not file.exists() or is_readable(file)


def _redact_reports(connection: duckdb.DuckDBPyConnection, lake: Lake, done: Forgotten) -> None:
    """A report about a refused batch may name events as examples."""
    from orchestration.validation import Report  # brings Great Expectations, which most homes can do without here

    ids: dict[str, set[str]] = {}
    for table, id_ in connection.execute("SELECT DISTINCT event_table, event_id FROM gone").fetchall():
        for reported in (table, "labels"):
            ids.setdefault(reported, set()).add(id_)
    for file in lake.root.glob("quarantine/*/day=*/report.json"):
        try:
            report = Report.from_json(file.read_text(encoding="utf-8"))
        except ValueError:  # its writer was killed
            done.left.append(f"{'/'.join(_place(lake, file))}: {file.parent.name}/report.json is no report")
            continue
        redacted = report.without(ids.get(report.table, ()))
        if redacted != report:
            for name, text in redacted.files().items():
                file.with_name(name).write_text(text, encoding="utf-8")


def _trained_with(settings: Settings) -> list[str]:
    """Releases whose run held rows of a forgotten account: weights cannot lose them, releases can only be followed."""
    reduced = {path.parent.name for path in _manifests(settings) if path.stem != "manifest" and _was_reduced(path)}
    return [
        f"release {release.name} {release.digest[:12]} was trained in run {run_id}, which held rows of a forgotten "
        f"account: its weights are as they were; train and release again, and revoke it"
        for release in sealed_bundles(settings.releases, ())
        if (run_id := str(release.facts.get("run_id"))) in reduced
    ]
