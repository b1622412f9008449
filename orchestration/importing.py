"""The door for real data: files of others become rows of the lake's inbox, or are refused with a reason."""

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.lake import DAY_US, Lake, Zone, literal, start_us
from feature_repo.tables import TABLES
from orchestration.batches import withdraw
from orchestration.import_sql import judged_sql, named_sql
from orchestration.mapping import HASH, Mapping, load_mapping, quoted
from serving.privacy import pseudonym
from serving.vault import Vault

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["ImportReport", "Rejection", "import_events", "load_mapping"]

READERS = {".csv", ".jsonl", ".ndjson", ".parquet"}
MAX_NAMED = 1_000  # rejections that a report names one by one; it counts all of them


@dataclass(frozen=True)
class Rejection:
    """Why one row was refused: where it stands and what class of value it held, never the value itself."""

    file: str
    row: int  # 1 is the first row of data that could be read
    column: str
    reason: str


@dataclass
class ImportReport:
    """What an import did; the same import again writes nothing and reports every file as unchanged."""

    num_read: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    num_files_written: int = 0
    num_files_unchanged: int = 0
    num_days_withdrawn: int = 0
    days_left: list[tuple[str, date]] = field(default_factory=list)  # (table, day)
    labels: Counter[tuple[str, int]] = field(default_factory=Counter)  # (label, value) -> rows
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # (column, reason) -> rows
    rejections: list[Rejection] = field(default_factory=list)  # the first MAX_NAMED

    @property
    def num_days_left(self) -> int:
        """Days of a table with rows that the source brought before and does not hold any more."""
        return len(self.days_left)

    def to_table(self) -> "RichTable":
        """For a terminal."""
        from rich.table import Table as RichTable

        table = RichTable("what", "rows", title="import")
        for name in ("num_read", "num_accepted", "num_rejected", "num_files_written", "num_files_unchanged"):
            table.add_row(name.removeprefix("num_").replace("_", " "), f"{getattr(self, name):,}")
        if self.num_days_withdrawn:
            table.add_row("days withdrawn; compute their features again", f"{self.num_days_withdrawn:,}")
        if self.days_left:
            table.add_row(
                "days left as the source held them before; --replace withdraws them", f"{self.num_days_left:,}"
            )
        for name, day in self.days_left[:10]:
            table.add_row(f"  {name} of {day}", "")
        for (label, value), count in sorted(self.labels.items()):
            table.add_row(f"label {label} = {value}", f"{count:,}")
        for (column, reason), count in self.reasons.most_common():
            table.add_row(f"rejected: {column} is {reason}", f"{count:,}")
        for rejection in self.rejections[:10]:
            table.add_row(f"  {rejection.file} row {rejection.row}: {rejection.column} is {rejection.reason}", "")
        return table


def import_events(
    lake: Lake, source: Path, mapping: Mapping, *, vault: Vault | None = None, replace: bool = False
) -> ImportReport:
    """Bring the events and labels of a CSV, JSONL or Parquet file, or of a folder of them, into the inbox.

    Every row keeps the lake's contract or is refused. The files are named for mapping and path of the source, so a
    second import of the same source changes nothing, and one of a corrected source replaces what it brought before to
    the days that it holds. Its other days stay and are named, since an export may be overwritten daily; an event that
    moved from one of them is refused by validation, as its id is not new. To `replace` is to withdraw those days first,
    also from what was accepted. Training sets made afterwards hold nothing of them, but features do: materialize in
    Dagster those of the withdrawn days and of the later days that their windows reach. A file that is gone from a
    folder is not noticed.
    Ids that a mapping hashes are hashed with the key in `vault`, as the service hashes them.
    Raises ValueError for a file that cannot be read at all or lacks a column that the mapping names.
    """
    assert vault is not None or not mapping.hashes, "a mapping hashes ids, and there is no key to hash them with"
    report = ImportReport()
    for file in _files(source):
        with lake.connect() as connection:
            if vault is not None:
                _let_hash(connection, vault)
            _read(connection, file, mapping)
            _judge(connection, mapping)
            _count(connection, file, report=report)
            name = f"{mapping.name}-{file.stem}-{_of_path(file)}"
            _write(lake, connection, report=report, table=mapping.table, name=name, replace=replace)
            if mapping.labels:
                _lay_labels(connection, mapping)
                _write(lake, connection, report=report, table="labels", name=name, replace=replace)
                _count_labels(connection, report)
            else:
                _settle_others(lake, "labels", name, kept=set(), report=report, replace=replace)
    return report


def _of_path(file: Path) -> str:
    """Tells files of one name apart, such as the days or the regions of an export."""
    return hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]


def _files(source: Path) -> list[Path]:
    files = sorted(f for f in source.iterdir() if f.suffix in READERS) if source.is_dir() else [source]
    if not files or not all(f.suffix in READERS and f.is_file() for f in files):
        raise ValueError(f"{source} is not a file or a folder of {', '.join(sorted(READERS))}")
    return files


def _let_hash(connection: duckdb.DuckDBPyConnection, vault: Vault) -> None:
    def hashed(value: str) -> str:
        return pseudonym(value, vault)

    connection.create_function(HASH, hashed)


def _read(connection: duckdb.DuckDBPyConnection, file: Path, mapping: Mapping) -> None:
    """Number the rows of the file and keep the columns that the mapping names, in the table `given`."""
    path = literal(str(file))
    if file.suffix == ".parquet":
        scan = f"read_parquet({path})"
    elif file.suffix == ".csv":
        scan = f"read_csv({path}, header = true, all_varchar = true, delim = ',', quote = '\"')"
    else:
        texts = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in mapping.source_columns)
        scan = f"read_json({path}, format = 'newline_delimited', columns = {{{texts}}})"
    try:
        present = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}  # noqa: S608
        absent = [name for name in mapping.source_columns if name not in present]
        if absent:
            raise ValueError(f"{file.name} has no column {absent[0]!r}, which mapping {mapping.name!r} names")
        names = ", ".join(quoted(name) for name in mapping.source_columns)
        connection.execute(f"CREATE TABLE given AS SELECT row_number() OVER () AS _row, {names} FROM {scan}")  # noqa: S608
    except duckdb.Error as error:  # its message quotes the line that it could not read
        raise ValueError(f"{file.name} cannot be read as {file.suffix[1:]}: {type(error).__name__}") from None


def _judge(connection: duckdb.DuckDBPyConnection, mapping: Mapping) -> None:
    """Lay the table `judged`: each row with the lake's columns and, where it breaks the contract, its `flaw`."""
    connection.execute(f"CREATE VIEW named AS {named_sql(mapping)} FROM given")
    connection.execute(f"CREATE TABLE judged AS {judged_sql(mapping, now_us=time.time_ns() // 1000)} FROM named")
    connection.execute("DROP VIEW named; DROP TABLE given")


def _count(connection: duckdb.DuckDBPyConnection, file: Path, *, report: ImportReport) -> None:
    num_read, num_accepted = connection.execute("SELECT count(*), count(*) - count(flaw) FROM judged").fetchone() or (
        0,
        0,
    )
    report.num_read += num_read
    report.num_accepted += num_accepted
    report.num_rejected += num_read - num_accepted
    for flaw, count in connection.execute(
        "SELECT flaw, count(*) FROM judged WHERE flaw IS NOT NULL GROUP BY flaw"
    ).fetchall():
        column, reason = flaw.split("|")
        report.reasons[column, reason] += count
    room = MAX_NAMED - len(report.rejections)
    named = connection.execute(
        "SELECT row, flaw FROM judged WHERE flaw IS NOT NULL ORDER BY row LIMIT ?", [room]
    ).fetchall()
    report.rejections += [Rejection(file.name, row, *flaw.split("|")) for row, flaw in named]


def _lay_labels(connection: duckdb.DuckDBPyConnection, mapping: Mapping) -> None:
    """Lay the table `labels`: one row per event and known label."""
    known_us = f"event_us + {int(mapping.labels_known_after_days * DAY_US)}"
    selects = [
        f"""SELECT event_id, '{mapping.table}' AS event_table, event_us, {known_us} AS known_us, '{name}' AS label,
        CAST({quoted("label_" + name)} AS TINYINT) AS value, '{mapping.labels_source}' AS source,
        CAST({mapping.sampling_probability} AS DOUBLE) AS sampling_probability, split
        FROM judged WHERE flaw IS NULL AND {quoted("label_" + name)} IS NOT NULL"""  # noqa: S608
        for name in mapping.labels
    ]
    connection.execute(f"CREATE TABLE said AS {' UNION ALL '.join(selects)}")


def _count_labels(connection: duckdb.DuckDBPyConnection, report: ImportReport) -> None:
    for label, value, count in connection.execute("SELECT label, value, count(*) FROM said GROUP BY ALL").fetchall():
        report.labels[label, value] += count


def _write(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    *,
    report: ImportReport,
    table: str,
    name: str,
    replace: bool,
) -> None:
    """Write each day of a table, unless just that is what the lake will hold of it anyway."""
    rows, moment = ("said", "known_us") if table == "labels" else ("judged", "event_us")
    good = "true" if table == "labels" else "flaw IS NULL"
    columns = ", ".join(TABLES[table].columns)
    found = f"SELECT DISTINCT CAST(make_timestamp({moment}) AS DATE) AS day FROM {rows} WHERE {good} ORDER BY day"  # noqa: S608
    days = [day for (day,) in connection.execute(found).fetchall()]
    _settle_others(lake, table, name, kept=set(days), report=report, replace=replace)
    for day in days:
        first_us = start_us(day)
        batch = connection.sql(
            f"""SELECT {columns} FROM {rows} WHERE {good} AND {moment} >= {first_us} AND {moment} < {first_us + DAY_US}
            ORDER BY event_us, event_id{", label" if table == "labels" else ""}"""  # noqa: S608
        ).to_arrow_table()
        if _is_there(lake, table, batch, day=day, name=name):
            report.num_files_unchanged += 1
        else:
            lake.write("inbox", table, batch, day=day, name=name)
            report.num_files_written += 1


def _settle_others(lake: Lake, table: str, name: str, *, kept: set[date], report: ImportReport, replace: bool) -> None:
    """Withdraw or name the days that hold rows of the source, which has none of them any more."""
    zones: tuple[Zone, ...] = ("inbox", "events")
    files = [file for zone in zones for file in lake.folder(zone, table).glob(f"day=*/{escape(name)}.parquet")]
    others = sorted({date.fromisoformat(file.parent.name[4:]) for file in files} - kept)
    if not replace:
        report.days_left += [(table, day) for day in others]
        return
    for day in others:
        withdraw(lake, table, day, name=f"{name}.parquet")
        report.num_days_withdrawn += 1


def _is_there(lake: Lake, table: str, batch: pa.Table, *, day: date, name: str) -> bool:
    """Whether the rows wait in the inbox or, where no other rows wait there to replace them, were accepted."""
    places: tuple[Zone, ...] = ("inbox", "events")
    files = [lake.folder(zone, table, day) / f"{name}.parquet" for zone in places]
    newest = next((file for file in files if file.exists()), None)
    return newest is not None and bool(pq.read_table(newest, partitioning=None).equals(batch))
