"""One connection to one SQLite file of the online store, which other processes read and write as well."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class SqliteFile:
    """A locked file is waited for at most `deadline_s`; without a path it lies in memory.

    `statements` make its tables on first use. A commit is not synced.
    """

    def __init__(self, path: Path | None, *, deadline_s: float, statements: Sequence[str]) -> None:
        self._path, self._deadline_s, self._statements = path, deadline_s, statements
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """One thread at a time; after an error the next call opens the file anew."""
        with self._lock:
            try:
                self._connection = self._connection or self._connect()
                yield self._connection
            except sqlite3.Error:
                if self._connection:
                    self._connection.close()
                self._connection = None
                raise

    def _connect(self) -> sqlite3.Connection:
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=self._deadline_s, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")  # who reads does not wait for who writes
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            for statement in self._statements:
                connection.execute(statement)
        return connection
