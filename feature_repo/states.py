"""What the online stores have in common: what is asked, what is moved, and how a state is marked.

A state is replaced only by whoever read the one before it: each write leaves a random mark behind the state, and the
next write names the mark that it saw. So writers in any number of processes lose nothing to each other, and whoever was
too late reads again. The facts since the state's horizon are kept by id beside it, and are written in the same step:
they tell whether a fact counted already, and a rebuild from the lake takes them over.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson

from feature_repo.facts import Slot
from feature_repo.layout import PROJECT
from feature_repo.state import Fact

MARK = 8
Column = tuple[str, str]  # view, column


class Asked(NamedTuple):
    """One entity, and the columns of its views that are wanted."""

    entity: str
    key: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Found:
    """The columns of one state as they were found, and which of some facts counted already."""

    state: bytes | memoryview | None
    seen: bytes | memoryview | None
    known: frozenset[int]

    @property
    def mark(self) -> bytes:
        """What the next write has to name."""
        return b"" if self.state is None else bytes(self.state[-MARK:])

    @property
    def body(self) -> bytes | memoryview | None:
        """The state without its mark."""
        return None if self.state is None else self.state[:-MARK]


@dataclass(frozen=True)
class Move:
    """A state in the place of the one with `mark`, the facts that it took in, and the ids of those it outlived.

    Without a body it leaves nothing of the entity in the view.
    """

    slot: Slot
    mark: bytes
    body: bytes
    seen: bytes
    facts: Sequence[Fact]
    us: int
    forgotten: Sequence[int] = ()

    @property
    def state(self) -> bytes:
        """The body with a mark of its own."""
        return self.body and self.body + os.urandom(MARK)


class States(Protocol):
    """An online store. Whatever it raises when it does not answer is among `NOT_ANSWERED`."""

    def read(self, asked: Sequence[Asked]) -> list[list[bytes | memoryview | None]]:
        """The wanted columns of each entity, all in one round trip."""

    def find(self, wanted: Mapping[Slot, Sequence[Fact]]) -> list[Found]:
        """The states that some facts would move."""

    def move(self, moves: Sequence[Move]) -> list[bool]:
        """Replace states, each whole or not at all; False where somebody else was faster."""

    def facts(self, slots: Sequence[Slot]) -> list[list[Fact]]:
        """The facts that are kept by id."""

    def keys(self, entity: str) -> list[str]:
        """Who may have a state in a view of an entity."""


def encode_fact(fact: Fact) -> bytes:
    """A fact as it is kept by id."""
    return orjson.dumps(tuple(fact))


def decode_fact(content: bytes) -> Fact:
    """Read what `encode_fact` wrote."""
    us, id_, sums, values = orjson.loads(content)
    return Fact(us, id_, tuple(sums), tuple(values))


def open_states(home: Path, *, redis: str = "", deadline_s: float, project: str = PROJECT) -> States:
    """The states of one home: in Redis (HOST:PORT,db=N), or else in SQLite below `home/feast`."""
    if redis:
        from feature_repo.states_redis import RedisStates

        return RedisStates(redis, deadline_s=deadline_s, project=project)
    from feature_repo.states_sqlite import SqliteStates

    return SqliteStates(home / "feast" / "online.db", deadline_s=deadline_s, project=project)
