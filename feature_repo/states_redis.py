"""States in Redis, in the hashes of Feast's own layout; each move is one Lua script, and so is whole or not at all."""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as TooSlow
from redis.retry import Retry

from feature_repo import layout
from feature_repo.facts import Slot
from feature_repo.state import Fact
from feature_repo.states import MARK, Asked, Column, Found, Move, decode_fact, encode_fact
from feature_repo.windows import VIEWS

STATES_KEPT_S = 40 * 86_400  # past the TTL of every view; whatever is alive is rebuilt each night
_BATCH = 500
# KEYS: the entity's hash, and the facts of the slot. ARGV: mark, field, state, field, seen, field, timestamp, how long
# to keep both, the number of facts that are forgotten, their ids, and then the id and content of each that is new. An
# empty state ends both.
_MOVE = """
local before = redis.call('HGET', KEYS[1], ARGV[2])
if (before and string.sub(before, -8) or '') ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[2], ARGV[4], ARGV[6])
    redis.call('DEL', KEYS[2])
    return 1
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
redis.call('EXPIRE', KEYS[1], ARGV[8])
for i = 10, 9 + ARGV[9] do redis.call('HDEL', KEYS[2], ARGV[i]) end
for i = 10 + ARGV[9], #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[2], ARGV[8])
return 1
"""


def connect(connection: str, *, deadline_s: float) -> Redis:
    """A client of HOST:PORT,db=N that waits at most half of `deadline_s` at a time, and never tries twice."""
    address, *options = connection.split(",")
    host, _, port = address.rpartition(":")
    given = dict(option.split("=", 1) for option in options)
    # Connecting, selecting the database and reading wait for one answer each.
    return Redis(
        host=host,
        port=int(port),
        socket_timeout=deadline_s / 2,
        socket_connect_timeout=deadline_s / 2,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        **{name: _literal(value) for name, value in given.items()},
    )


class RedisStates:
    """`connection` is HOST:PORT,db=N as Feast writes it.

    A read waits for bytes at most half of `deadline_s` at a time, and is given up once `deadline_s` have passed.
    """

    def __init__(self, connection: str, *, deadline_s: float, project: str) -> None:
        self._pool = connect(connection, deadline_s=deadline_s).connection_pool
        self._deadline_s, self._project = deadline_s, project.encode()

    def read(self, asked: Sequence[Asked]) -> list[list[bytes | memoryview | None]]:
        """One HMGET per entity, in one round trip."""
        packed = [_hmget(self._key(one.entity, one.key), one.columns) for one in asked]
        return [[value and layout.from_value(value) for value in values] for values in self._exchange(packed)]

    def find(self, wanted: Mapping[Slot, Sequence[Fact]]) -> list[Found]:
        """States first and ids after them, so that a fact that comes in between is seen by its mark."""
        commands: list[tuple[Any, ...]] = []
        for slot, facts in wanted.items():
            columns = ((slot.view, layout.STATE), (slot.view, layout.SEEN))
            commands.append(("HMGET", self._key(VIEWS[slot.view].entity, slot.key), *_fields(columns)))
            commands += [("HEXISTS", self._facts_key(slot), _id(fact.id)) for fact in facts]
        answers = iter(self._ask(commands))
        found = []
        for facts in wanted.values():
            state, seen = (value and layout.from_value(value) for value in next(answers))
            found.append(Found(state, seen, frozenset(fact.id for fact in facts if next(answers))))
        return found

    def move(self, moves: Sequence[Move]) -> list[bool]:
        """One script per state."""
        return [bool(done) for done in self._ask([self._move(move) for move in moves])]

    def facts(self, slots: Sequence[Slot]) -> list[list[Fact]]:
        """Whole hashes; only a rebuild reads them."""
        answers = self._ask([("HVALS", self._facts_key(slot)) for slot in slots])
        return [[decode_fact(content) for content in contents] for contents in answers]

    def keys(self, entity: str) -> list[str]:
        """By a scan over the hashes of the entity."""
        prefix = layout.entity_key_prefix(entity)
        pattern = b"".join(b"\\%c" % byte for byte in prefix) + b"*" + self._project
        with Redis(connection_pool=self._pool) as client:
            found = client.scan_iter(match=pattern, count=_BATCH)
            return [key[len(prefix) + 4 : -len(self._project)].decode() for key in found]

    def _move(self, move: Move) -> tuple[Any, ...]:
        view = move.slot.view
        keys = [self._key(VIEWS[view].entity, move.slot.key), self._facts_key(move.slot)]
        arguments: list[Any] = [move.mark]
        for column, value in ((layout.STATE, move.state), (layout.SEEN, move.seen)):
            arguments += [layout.redis_field(view, column), layout.to_value(value) if move.body else b""]
        arguments += [layout.redis_timestamp_field(view), layout.to_timestamp(move.us), STATES_KEPT_S]
        arguments += [len(move.forgotten), *map(_id, move.forgotten)]
        for fact in move.facts:
            arguments += [_id(fact.id), encode_fact(fact)]
        return ("EVAL", _MOVE, len(keys), *keys, *arguments)

    def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        return self._exchange([_packed(command) for command in commands])

    def _exchange(self, packed: Sequence[bytes]) -> list[Any]:
        """Send all commands, then read all answers: what redis-py's pipeline does, at half of its cost."""
        answers: list[Any] = []
        for start in range(0, len(packed), _BATCH):
            until = time.monotonic() + self._deadline_s
            connection = self._pool.get_connection()
            try:
                batch = packed[start : start + _BATCH]
                connection.send_packed_command([b"".join(batch)])
                for _ in batch:
                    answers.append(connection.read_response(disable_decoding=True))
                    if time.monotonic() > until:
                        raise TooSlow(f"no answer within {self._deadline_s} s")
            except BaseException:
                connection.disconnect()  # answers that are still to come belong to nobody
                raise
            finally:
                self._pool.release(connection)
        return answers

    def _key(self, entity: str, key: str) -> bytes:
        return _prefix(entity) + layout.entity_key_suffix(key) + self._project

    def _facts_key(self, slot: Slot) -> bytes:
        """In the same slot of a cluster as the entity's hash: what stands in braces decides."""
        return _facts_name(slot.view, self._key(VIEWS[slot.view].entity, slot.key))


def _facts_name(view: str, name: bytes) -> bytes:
    return b"facts:%b:{%b}" % (view.encode(), name)


@lru_cache
def _prefix(entity: str) -> bytes:
    return layout.entity_key_prefix(entity)


@lru_cache
def _fields(columns: tuple[Column, ...]) -> tuple[bytes, ...]:
    return tuple(layout.redis_field(view, column) for view, column in columns)


@lru_cache
def _around_key(columns: tuple[Column, ...]) -> tuple[bytes, bytes]:
    before = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(columns))
    return before, b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in _fields(columns))


def _hmget(key: bytes, columns: tuple[Column, ...]) -> bytes:
    before, after = _around_key(columns)
    return b"%b$%d\r\n%b\r\n%b" % (before, len(key), key, after)


def _packed(command: Sequence[Any]) -> bytes:
    """A command in Redis's own protocol."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _id(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def _literal(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


assert MARK == 8, "the script compares as many bytes"
