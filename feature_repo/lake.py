"""Where the lake lies: day-partitioned Parquet, written whole and atomically, read by DuckDB."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.tables import DECISIONS, TABLES, Table

Zone = Literal["inbox", "events", "quarantine", "features", "state", "truth", "log"]
DAY_US = 86_400_000_000
ARROW = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "TINYINT": pa.int8(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR[]": pa.list_(pa.string()),
    "MAP(VARCHAR, DOUBLE)": pa.map_(pa.string(), pa.float64()),
}
_DECLARED = {**TABLES, DECISIONS.name: DECISIONS}


def day_of(event_us: int) -> date:
    """The UTC day in which a moment lies."""
    return datetime.fromtimestamp(event_us // 1_000_000, UTC).date()


def start_us(day: date) -> int:
    """The first microsecond of a UTC day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def schema_of(table: Table) -> pa.Schema:
    """The columns of a table as Arrow types."""
    return pa.schema([(name, ARROW[column.type]) for name, column in table.columns.items()])


@dataclass(frozen=True)
class Lake:
    """A folder of zones (`inbox` arrived, `events` validated, `quarantine` refused, `log` decided, `features`, `truth`)
    and tables.

    A partition is `ZONE/TABLE/day=YYYY-MM-DD/NAME.parquet`. Writing a file under a name that exists replaces it, in one
    rename: a reader sees the old file or the new one.
    """

    root: Path
    memory_limit: str = "4GB"

    def folder(self, zone: Zone, table: str, day: date | None = None) -> Path:
        """The folder of a table, or of one day of it."""
        base = self.root / zone / table
        return base if day is None else base / f"day={day.isoformat()}"

    def days(self, zone: Zone, table: str) -> list[date]:
        """The days that hold at least one file, in order."""
        folders = self.folder(zone, table).glob("day=*")
        return sorted(date.fromisoformat(f.name[4:]) for f in folders if any(f.glob("*.parquet")))

    def write(self, zone: Zone, table: str, rows: pa.Table, *, day: date, name: str = "part") -> Path:
        """Write one file of one day; the same name replaces it."""
        target = self.folder(zone, table, day) / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{name}.{uuid.uuid4().hex}.partial")
        pq.write_table(rows, partial, compression="zstd")
        os.replace(partial, target)  # noqa: PTH105  # one rename, atomic on a POSIX file system
        return target

    def remove(self, zone: Zone, table: str, day: date) -> None:
        """Forget one day of a table."""
        shutil.rmtree(self.folder(zone, table, day), ignore_errors=True)

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """An in-memory DuckDB with bounded memory that spills beside the lake, and with a view of each table."""
        spill = self.root / ".spill"
        spill.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(config={"memory_limit": self.memory_limit, "temp_directory": str(spill)}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for table in TABLES:
                connection.execute(f"CREATE VIEW {table} AS {self.select('events', table)}")
            connection.execute(f"CREATE VIEW decisions AS {self.select('log', 'decisions')}")
            yield connection

    def files(self, zone: Zone, table: str, *, first: date | None = None, last: date | None = None) -> list[Path]:
        """The files of a table, with its days bounded inclusively."""
        days = [d for d in self.days(zone, table) if (first is None or d >= first) and (last is None or d <= last)]
        return [file for day in days for file in sorted(self.folder(zone, table, day).glob("*.parquet"))]

    def select(self, zone: Zone, table: str, *, first: date | None = None, last: date | None = None) -> str:
        """SQL that reads a table, with its days bounded inclusively; an absent table reads as empty."""
        columns = _DECLARED[table].columns if table in _DECLARED else {}
        files = self.files(zone, table, first=first, last=last)
        if not files:
            nulls = ", ".join(f"CAST(NULL AS {c.type}) AS {n}" for n, c in columns.items()) or "NULL AS nothing"
            return f"SELECT {nulls} WHERE false"
        listed = ", ".join(literal(str(file)) for file in files)
        names = ", ".join(columns) or "* EXCLUDE (day)"
        return f"SELECT {names} FROM read_parquet([{listed}], hive_partitioning = true, union_by_name = true)"  # noqa: S608


def days_between(first: date, last: date) -> list[date]:
    """Every day from first to last, both included."""
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]
