"""Takes an entity out of the online store: its states, and the facts kept beside them; others hold it as a hash."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from feature_repo.layout import PROJECT, entity_key_prefix, entity_key_suffix

_PATIENCE_S = 30.0


def forget_online(home: Path, entity: str, keys: Sequence[str], *, redis: str = "", project: str = PROJECT) -> int:
    """Delete what some keys of an entity own, so that no byte of it stays in the file; how many rows there were."""
    serialized = [entity_key_prefix(entity) + entity_key_suffix(key) for key in keys]
    if redis:
        return _in_redis(redis, [key + project.encode() for key in serialized])
    path = home / "feast" / "online.db"
    return _in_sqlite(path, serialized) if path.exists() else 0


def _in_sqlite(path: Path, keys: Sequence[bytes]) -> int:
    """A deleted row's bytes stay in the file until it is vacuumed, and in the log beside it until that is cut."""
    num_deleted = 0
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if "entity_key" in {column[1] for column in connection.execute(f'PRAGMA table_info("{table}")')}:
                marks = ",".join("?" * len(keys))
                query = f'DELETE FROM "{table}" WHERE entity_key IN ({marks})'  # noqa: S608
                num_deleted += connection.execute(query, list(keys)).rowcount
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return num_deleted


def _in_redis(connection: str, keys: Sequence[bytes]) -> int:
    """Every name under which something of an entity is kept holds its serialized key, and the project behind it."""
    import redis

    address, *options = connection.split(",")
    host, _, port = address.partition(":")
    database = dict(option.split("=", 1) for option in options).get("db", "0")
    with redis.Redis(host, int(port), db=int(database)) as client:
        mine = [found for found in client.scan_iter(count=10_000) if any(key in found for key in keys)]
        return int(client.delete(*mine)) if mine else 0
