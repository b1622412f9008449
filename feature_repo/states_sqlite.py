"""States in SQLite, in the tables of Feast's own layout; moves are one transaction."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from feature_repo import layout
from feature_repo.facts import Slot
from feature_repo.sqlite_file import SqliteFile
from feature_repo.state import Fact
from feature_repo.states import MARK, Asked, Found, Move, decode_fact, encode_fact
from feature_repo.windows import VIEWS

# The first as Feast creates it, which it does only where it is not there yet.
_TABLES = (
    'CREATE TABLE IF NOT EXISTS "{table}" (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, '
    "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))",
    'CREATE TABLE IF NOT EXISTS "{table}_facts" (entity_key BLOB, id INTEGER, fact BLOB, '
    "PRIMARY KEY(entity_key, id)) WITHOUT ROWID",
)
_PUT = 'INSERT OR REPLACE INTO "{table}" (entity_key, feature_name, value, event_ts, created_ts) VALUES (?, ?, ?, ?, ?)'


class SqliteStates:
    """One connection to one file; a locked file is waited for at most `deadline_s`."""

    def __init__(self, path: Path, *, deadline_s: float, project: str) -> None:
        self._tables = {view: layout.table(project, view) for view in VIEWS}
        statements = [s.format(table=table) for table in self._tables.values() for s in _TABLES]
        self._file = SqliteFile(path, deadline_s=deadline_s, statements=statements)

    def read(self, asked: Sequence[Asked]) -> list[list[bytes | memoryview | None]]:
        """One SELECT over the tables of all views."""
        keys = [_key(one.entity, one.key) for one in asked]
        wanted: dict[tuple[str, str], set[bytes]] = {}
        for one, key in zip(asked, keys, strict=True):
            for column in one.columns:
                wanted.setdefault(column, set()).add(key)
        selects: list[str] = []
        arguments: list[bytes] = []
        for number, ((view, name), of_view) in enumerate(wanted.items()):
            marks = ",".join("?" * len(of_view))
            selects.append(
                f'SELECT {number}, entity_key, value FROM "{self._tables[view]}" '  # noqa: S608
                f"WHERE feature_name = '{name}' AND entity_key IN ({marks})"
            )
            arguments += of_view
        numbers = {column: number for number, column in enumerate(wanted)}
        with self._file.connected() as connection:
            rows = connection.execute(" UNION ALL ".join(selects), arguments).fetchall() if selects else []
        found = {(number, key): layout.from_value(value) for number, key, value in rows}
        return [
            [found.get((numbers[column], key)) for column in one.columns] for one, key in zip(asked, keys, strict=True)
        ]

    def find(self, wanted: Mapping[Slot, Sequence[Fact]]) -> list[Found]:
        """States first and ids after them, so that a fact that comes in between is seen by its mark."""
        columns = (layout.STATE, layout.SEEN)
        asked = [Asked(VIEWS[s.view].entity, s.key, tuple((s.view, column) for column in columns)) for s in wanted]
        with self._file.connected() as connection:
            states = self.read(asked)
            return [
                Found(state, seen, frozenset(f.id for f in facts if self._is_known(connection, slot, f)))
                for (slot, facts), (state, seen) in zip(wanted.items(), states, strict=True)
            ]

    def move(self, moves: Sequence[Move]) -> list[bool]:
        """All in one transaction, which nobody else writes beside."""
        with self._file.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                return [self._move(connection, move) for move in moves]

    def facts(self, slots: Sequence[Slot]) -> list[list[Fact]]:
        """One SELECT per slot; only a rebuild reads them."""
        with self._file.connected() as connection:
            return [[decode_fact(row[0]) for row in self._facts(connection, slot)] for slot in slots]

    def keys(self, entity: str) -> list[str]:
        """From the tables of all views of the entity."""
        tables = [table for view, table in self._tables.items() if VIEWS[view].entity == entity]
        selects = " UNION ".join(f'SELECT entity_key FROM "{table}"' for table in tables)  # noqa: S608
        start = len(layout.entity_key_prefix(entity)) + 4
        with self._file.connected() as connection:
            return [key[start:].decode() for (key,) in connection.execute(selects)]

    def _facts(self, connection: sqlite3.Connection, slot: Slot) -> sqlite3.Cursor:
        query = f'SELECT fact FROM "{self._tables[slot.view]}_facts" WHERE entity_key = ?'  # noqa: S608
        return connection.execute(query, [_key(VIEWS[slot.view].entity, slot.key)])

    def _is_known(self, connection: sqlite3.Connection, slot: Slot, fact: Fact) -> bool:
        query = f'SELECT 1 FROM "{self._tables[slot.view]}_facts" WHERE entity_key = ? AND id = ?'  # noqa: S608
        asked = (_key(VIEWS[slot.view].entity, slot.key), fact.id)
        return connection.execute(query, asked).fetchone() is not None

    def _move(self, connection: sqlite3.Connection, move: Move) -> bool:
        table, key = self._tables[move.slot.view], _key(VIEWS[move.slot.view].entity, move.slot.key)
        before = f'SELECT value FROM "{table}" WHERE entity_key = ? AND feature_name = ?'  # noqa: S608
        row = connection.execute(before, (key, layout.STATE)).fetchone()
        if (row[0][-MARK:] if row else b"") != move.mark:
            return False
        if not move.body:
            for of_key in (table, f"{table}_facts"):
                connection.execute(f'DELETE FROM "{of_key}" WHERE entity_key = ?', (key,))  # noqa: S608
            return True
        moment = move.us // 1_000_000  # Feast reads timestamps as whole seconds
        for column, value in ((layout.STATE, move.state), (layout.SEEN, move.seen)):
            row = (key, column, layout.to_value(value), moment, moment)
            connection.execute(_PUT.format(table=table), row)
        forgotten = [(key, id_) for id_ in move.forgotten]
        connection.executemany(f'DELETE FROM "{table}_facts" WHERE entity_key = ? AND id = ?', forgotten)  # noqa: S608
        facts = [(key, fact.id, encode_fact(fact)) for fact in move.facts]
        connection.executemany(f'INSERT OR REPLACE INTO "{table}_facts" VALUES (?, ?, ?)', facts)  # noqa: S608
        return True


def _key(entity: str, key: str) -> bytes:
    return layout.entity_key_prefix(entity) + layout.entity_key_suffix(key)
