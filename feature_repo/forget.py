"""Takes entities out of the online store: their states, and the facts kept beside them; others hold them as a hash."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from feature_repo.layout import PROJECT, entity_key_prefix, entity_key_suffix

_PATIENCE_S = 30.0
_BATCH = 500


def forget_online(home: Path, keys: Mapping[str, Sequence[str]], *, redis: str = "", project: str = PROJECT) -> int:
    """Delete what some keys of each entity own, so that no byte of it stays in the file; how many rows there were."""
    if redis:
        return _in_redis(redis, keys, project)
    path = home / "feast" / "online.db"
    serialized = [entity_key_prefix(name) + entity_key_suffix(key) for name, of_name in keys.items() for key in of_name]
    return _in_sqlite(path, serialized) if path.exists() else 0


def _in_sqlite(path: Path, keys: Sequence[bytes]) -> int:
    """A deleted row's bytes stay in the file until it is vacuumed, and in the log beside it until that is cut."""
    num_deleted = 0
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if "entity_key" in {column[1] for column in connection.execute(f'PRAGMA table_info("{table}")')}:
                query = f'DELETE FROM "{table}" WHERE entity_key = ?'  # noqa: S608
                num_deleted += connection.executemany(query, [(key,) for key in keys]).rowcount
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return num_deleted


def _in_redis(connection: str, keys: Mapping[str, Sequence[str]], project: str) -> int:
    """Every name under which something of an entity is kept is its serialized key and the project, or ends with it."""
    from feature_repo.states_redis import connect

    serialized = {
        entity_key_prefix(name) + entity_key_suffix(key) + project.encode()
        for name, of_name in keys.items()
        for key in of_name
    }
    with connect(connection, deadline_s=_PATIENCE_S) as client:
        mine = [name for name in client.scan_iter(count=10_000) if _owner(name) in serialized]
        batches = [mine[start : start + _BATCH] for start in range(0, len(mine), _BATCH)]
        return sum(int(client.delete(*batch)) for batch in batches)


def _owner(name: bytes) -> bytes:
    """Whose a name is: `KIND:WHICH:{KEY}`, or the key itself."""
    _, is_of, key = name.partition(b":{")
    return key[:-1] if is_of else name
