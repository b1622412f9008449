"""Where strikes lie: in the online store of the home, beside the states of accounts, each once by its decision's id.

Whoever takes an account out of the online store takes its strikes along: in SQLite by the column `entity_key`, in Redis
by the serialized key in the name.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from feature_repo import layout
from feature_repo.sqlite_file import SqliteFile

_TABLE = (
    "CREATE TABLE IF NOT EXISTS strikes (entity_key BLOB, policy TEXT, decision_id TEXT, at_us INTEGER, "
    "until_us INTEGER, PRIMARY KEY (entity_key, policy, decision_id)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS strikes_until ON strikes (until_us)",
)

# Under a policy that now counts longer, a strike stays longer, too.
_ADDED = (
    "INSERT INTO strikes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET until_us = max(until_us, excluded.until_us)"
)


class Strike(NamedTuple):
    """An action harder than `log` against an account; nobody counts it from `until_us` on."""

    policy: str
    account: str
    decision_id: str
    at_us: int
    until_us: int


class Asked(NamedTuple):
    """Whose strikes are wanted: those after a moment."""

    policy: str
    account: str
    since_us: int


class StrikeStore(Protocol):
    """Counts strikes. Whatever it raises when it does not answer is among `feature_repo.online.NOT_ANSWERED`."""

    def count(self, asked: Sequence[Asked]) -> list[int]: ...  # noqa: D102
    def add(self, strikes: Sequence[Strike]) -> None: ...  # noqa: D102


class _Clock:
    """Now, never further than what has passed since it was made: set ahead later, a clock makes no strike old."""

    def __init__(self) -> None:
        self._began_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        return min(time.time_ns(), self._began_ns + time.monotonic_ns()) // 1000


class SqliteStrikes:
    """In one file; without a path, in memory. What a power cut takes is in the decision log."""

    def __init__(self, path: Path | None, *, deadline_s: float) -> None:
        self._file, self._clock = SqliteFile(path, deadline_s=deadline_s, statements=_TABLE), _Clock()

    def count(self, asked: Sequence[Asked]) -> list[int]:
        """One SELECT per account, by the primary key."""
        query = "SELECT count(*) FROM strikes WHERE entity_key = ? AND policy = ? AND at_us > ?"
        with self._file.connected() as connection:
            rows = [(_key(one.account), one.policy, one.since_us) for one in asked]
            return [connection.execute(query, row).fetchone()[0] for row in rows]

    def add(self, strikes: Sequence[Strike]) -> None:
        """One transaction; what nobody counts any more goes in the same one."""
        rows = [(_key(s.account), s.policy, s.decision_id, s.at_us, s.until_us) for s in strikes]
        with self._file.connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                connection.executemany(_ADDED, rows)
                connection.execute("DELETE FROM strikes WHERE until_us <= ?", [self._clock.now_us()])


class RedisStrikes:
    """A sorted set per policy and account, of decision ids by their time; it goes some time after its last strike."""

    def __init__(self, connection: str, *, deadline_s: float) -> None:
        from feature_repo.states_redis import connect

        self._redis, self._clock = connect(connection, deadline_s=deadline_s), _Clock()

    def count(self, asked: Sequence[Asked]) -> list[int]:
        """All in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for one in asked:
            pipeline.zcount(_name(one.policy, one.account), f"({one.since_us}", "+inf")
        return list(pipeline.execute())

    def add(self, strikes: Sequence[Strike]) -> None:
        """All in one round trip; a member that is there stays as it is."""
        pipeline, now_us = self._redis.pipeline(transaction=False), self._clock.now_us()
        for strike in strikes:
            name, window_us = _name(strike.policy, strike.account), strike.until_us - strike.at_us
            pipeline.zadd(name, {strike.decision_id: strike.at_us})
            pipeline.zremrangebyscore(name, "-inf", now_us - window_us)
            pipeline.expire(name, window_us // 1_000_000 + 1)
        pipeline.execute()


def open_strikes(home: Path, *, redis: str = "", deadline_s: float) -> StrikeStore:
    """The strikes of one home: in Redis (HOST:PORT,db=N), or else in SQLite below `home/feast`."""
    if redis:
        return RedisStrikes(redis, deadline_s=deadline_s)
    return SqliteStrikes(home / "feast" / "online.db", deadline_s=deadline_s)


def _key(account: str) -> bytes:
    return layout.entity_key_prefix("account_id") + layout.entity_key_suffix(account)


def _name(policy: str, account: str) -> bytes:
    return b"strikes:%b:{%b}" % (policy.encode(), _key(account) + layout.PROJECT.encode())
