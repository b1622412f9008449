"""Files of an arriving batch: how they are read for inspection, and how they move without showing half of one."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from feature_repo.lake import Lake, Zone, literal
from feature_repo.tables import TABLES
from orchestration import usual

# The moment that must lie in the day: a label belongs to the day on which it became known.
DAY_COLUMN = {**dict.fromkeys(TABLES, "event_us"), "labels": "known_us"}


@dataclass(frozen=True)
class Batch:
    """What had arrived for one day of one table at the moment of looking; later arrivals are another batch."""

    table: str
    day: date
    stamps: Mapping[Path, tuple[int, int]]  # inode and modification time of each file

    @property
    def files(self) -> list[Path]:
        """The Parquet files, in order."""
        return sorted(self.stamps)

    @property
    def num_rows(self) -> int:
        """Rows by the files' own footers; an unreadable file has none."""
        return sum(pq.read_metadata(file).num_rows for file in self.files if is_readable(file))


def arrived(lake: Lake, table: str, day: date) -> bool:
    """Whether files wait in the inbox."""
    return any(lake.folder("inbox", table, day).glob("*.parquet"))


def read(lake: Lake, table: str, day: date) -> Batch:
    """Fix what lies in the inbox now."""
    return Batch(table, day, {file: _stamp(file) for file in lake.folder("inbox", table, day).glob("*.parquet")})


def num_rows(lake: Lake, table: str, day: date) -> int:
    """Rows of a day that were accepted so far."""
    return sum(pq.read_metadata(file).num_rows for file in lake.folder("events", table, day).glob("*.parquet"))


def in_quarantine(lake: Lake, table: str, day: date) -> list[str]:
    """Names of refused files of a day that no accepted batch has replaced."""
    return [file.name for file in lake.folder("quarantine", table, day).glob("*.parquet")]


def is_readable(file: Path) -> bool:
    """Whether a file is Parquet at all, by its footer."""
    try:
        pq.read_metadata(file)
    except pa.ArrowInvalid:
        return False
    except OSError as error:
        if error.errno is not None:  # the file system's error, such as an absent file, and not that of a damaged footer
            raise
        return False
    return True


def lay_columns(connection: duckdb.DuckDBPyConnection, batches: Iterable[Batch]) -> None:
    """Create the table `columns`: one row per file and column of the batches."""
    connection.execute("CREATE TABLE columns (file VARCHAR, name VARCHAR, type VARCHAR, declaration VARCHAR)")
    for batch in batches:
        for file in batch.files:
            query = f"DESCRIBE SELECT * FROM {_parquet([file], is_partitioned=False)}"  # noqa: S608
            described = connection.execute(query).fetchall()
            rows = [(f"{batch.day}/{file.name}", name, type_, f"{name} {type_}") for name, type_, *_ in described]
            connection.executemany("INSERT INTO columns VALUES (?, ?, ?, ?)", rows)


def lay_rows(connection: duckdb.DuckDBPyConnection, lake: Lake, batches: list[Batch], *, today: date) -> None:
    """Create the view `batch` (columns of the contract and those derived from them) and what `usual.lay` creates."""
    table = TABLES[batches[0].table]
    arriving = [file for batch in batches for file in batch.files]
    kept = _kept(lake, batches)
    derived = [f"regexp_matches({n}, '{c.pattern}') AS {n}_matches" for n, c in table.columns.items() if c.pattern]
    derived += [f"isfinite({n}) AS {n}_is_finite" for n, c in table.columns.items() if c.type == "DOUBLE"]
    derived.append(f"{DAY_COLUMN[table.name]} - epoch_us(CAST(day AS TIMESTAMP)) AS us_after_midnight")
    if table.name != "labels":
        derived.append(f"{_is_new(kept)} AS event_id_is_new")
    columns = ", ".join([*table.columns, *derived])
    connection.execute(f"CREATE VIEW batch AS SELECT {columns} FROM {_parquet(arriving)} AS b")  # noqa: S608
    days = [batch.day for batch in batches]
    usual.lay(connection, table, [*kept, *arriving], moment=DAY_COLUMN[table.name], days=days, today=today)


def accept(lake: Lake, batch: Batch) -> None:
    """Move a batch from the inbox to the events; a day seen for the first time appears in one rename.

    Killed in between, the files are still in the inbox, and the next run does it again with the same result.
    """
    with _held(lake, batch.table) as staging:
        _require_unchanged(batch)
        target = lake.folder("events", batch.table, batch.day)
        staging.mkdir()
        for file in batch.files:
            (staging / file.name).hardlink_to(file)
        if target.exists():
            for file in staging.iterdir():
                file.replace(target / file.name)
            staging.rmdir()
        else:
            staging.rename(target)
        for file in batch.files:
            if file.samefile(target / file.name):  # what arrived under its name meanwhile waits for the next run
                file.unlink()
            (lake.folder("quarantine", batch.table, batch.day) / file.name).unlink(missing_ok=True)


def quarantine(lake: Lake, batch: Batch, reports: Mapping[str, str]) -> None:
    """Move a whole batch out of the way, its reports first."""
    with _held(lake, batch.table):
        _require_unchanged(batch)
        target = lake.folder("quarantine", batch.table, batch.day)
        target.mkdir(parents=True, exist_ok=True)
        for name, text in reports.items():
            (target / name).write_text(text, encoding="utf-8")
        for file in batch.files:
            file.replace(target / file.name)


def withdraw(lake: Lake, table: str, day: date, *, name: str) -> None:
    """Take one file of a day out of wherever it lies, accepted or not; nothing that was computed from it follows."""
    zones: tuple[Zone, ...] = ("inbox", "events", "quarantine")
    with _held(lake, table):
        for zone in zones:
            (lake.folder(zone, table, day) / name).unlink(missing_ok=True)


def sweep(lake: Lake) -> None:
    """Remove what killed runs left of batches that they were accepting; these still wait in the inbox."""
    for table in TABLES:
        if lake.folder("events", table).exists():
            with _held(lake, table):
                pass


@contextmanager
def _held(lake: Lake, table: str) -> Iterator[Path]:
    """Let nobody else move batches of a table, and give a folder to stage one in, cleared of what a kill left there."""
    folder = lake.folder("events", table)
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / ".accepting"
    with FileLock(folder / ".accepting.lock"):  # the kernel frees it when its process dies
        shutil.rmtree(staging, ignore_errors=True)
        yield staging


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns


def _require_unchanged(batch: Batch) -> None:
    for file, stamp in batch.stamps.items():
        if not file.exists() or _stamp(file) != stamp:
            raise RuntimeError(
                f"{batch.table} of {batch.day}: {file.name} was replaced or moved while it was validated; run again"
            )


def _kept(lake: Lake, batches: list[Batch]) -> list[Path]:
    """Accepted files that stay when the batches are accepted; a file of the same name is replaced."""
    table = batches[0].table
    replaced = {lake.folder("events", table, batch.day) / file.name for batch in batches for file in batch.files}
    return sorted(set(lake.folder("events", table).glob("day=*/*.parquet")) - replaced)


def _is_new(kept: list[Path]) -> str:
    ids = f"SELECT event_id FROM {_parquet(kept)}" if kept else "SELECT NULL AS event_id WHERE false"  # noqa: S608
    return f"NOT EXISTS (SELECT 1 FROM ({ids}) AS known WHERE known.event_id = b.event_id)"  # noqa: S608


def _parquet(files: list[Path], *, is_partitioned: bool = True) -> str:
    names = ", ".join(literal(str(file)) for file in files)
    return f"read_parquet([{names}], hive_partitioning = {is_partitioned}, union_by_name = true)"
