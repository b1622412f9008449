"""Rebuilds the online states from the lake, while the service goes on pushing.

The lake settles what is older than the last day that it holds; the facts of that day stand by themselves, with their
ids, next to those that were pushed. So a fact that reached the service and not yet the lake, or the lake and not the
service, counts once, and a fact of that day finds its place whenever it arrives. A day of which files still wait, or
were refused and are not corrected yet, is not settled for a week: until then its facts stand by themselves too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import duckdb

from feature_repo import text
from feature_repo.compute import bound_tables
from feature_repo.facts import Slot, fact_id, value_of
from feature_repo.lake import DAY_US, Lake, Zone, start_us
from feature_repo.profile import Profile
from feature_repo.push import MAX_ROUNDS, Kept, moved, nothing, state_of
from feature_repo.state import NEVER, Fact, Shape, State
from feature_repo.states import Found, Move, States
from feature_repo.view import View
from feature_repo.windows import VIEWS

_BATCH = 500
_PART = 100_000  # entities in memory at once
_WAIT = timedelta(days=7)  # for the correction of a refused batch; the facts of as many days are then kept one by one


def rebuild(lake: Lake, states: States, day: date) -> dict[str, int]:
    """Make the states of every entity follow from the lake up to the end of a day, and from what was pushed since then.

    Returns the number of states per view. Killed in the middle, it leaves each state as it was or as it is to be; run
    again, it changes nothing that is right already.
    """
    return {view.name: _rebuild(lake, states, view, day) for view in VIEWS.values()}


def _rebuild(lake: Lake, states: States, view: View, day: date) -> int:
    horizon, num = _horizon(lake, states, view, day), 0
    horizon_us = start_us(horizon)
    with lake.connect() as connection:
        bound_tables(connection, lake, view, first=horizon, last=day)
        _take_facts(connection, view, end_us=start_us(day) + DAY_US)
        of_lake = {entity for (entity,) in _rows(connection, "SELECT DISTINCT entity FROM known")}
        only_pushed = sorted(set(states.keys(view.entity)) - of_lake)
        num_parts = 1 + len(of_lake) // _PART
        for part in range(num_parts):
            of_part = f"SELECT * FROM known WHERE hash(entity) % {num_parts} = {part}"  # noqa: S608
            connection.execute(f"CREATE OR REPLACE TEMP VIEW part AS {of_part}")
            settled, recent = _settled(connection, view, horizon_us), _facts_since(connection, view, horizon_us)
            for keys in _batches(sorted({*settled, *recent})):
                fresh = {Slot(view.name, key): settled.get(key) or nothing(view, horizon_us) for key in keys}
                num += _replace(states, fresh, {slot: recent.get(slot.key, []) for slot in fresh})
    for keys in _batches(only_pushed):
        num += _replace(states, {Slot(view.name, key): nothing(view, horizon_us) for key in keys}, {})
    return num


def _horizon(lake: Lake, states: States, view: View, day: date) -> date:
    """The first day that is not settled: up to `day`, one of which files wait and that was not settled before."""
    zones: tuple[Zone, ...] = ("inbox", "quarantine")
    found = {found for table in view.tables for zone in zones for found in lake.days(zone, table)}
    waiting = sorted(found for found in found if day - _WAIT <= found < day)
    if not waiting:
        return day
    settled_us = max((_settled_until(states, view, keys) for keys in _batches(states.keys(view.entity))), default=0)
    return next((found for found in waiting if start_us(found) >= settled_us), day)


def _settled_until(states: States, view: View, keys: Sequence[str]) -> int:
    found = states.find({Slot(view.name, key): () for key in keys})
    return max(state_of(view, one).horizon_us for one in found)


def _replace(states: States, fresh: dict[Slot, Kept], recent: dict[Slot, list[Fact]]) -> int:
    """Put fresh states in the place of those that are there; what is pushed meanwhile is read again and taken in."""
    num = 0
    for _ in range(MAX_ROUNDS):
        found = states.find(dict.fromkeys(fresh, ()))
        pushed = states.facts(list(fresh))
        moves = [
            _move(slot, settled.copy(), found=before, recent=recent.get(slot, []), pushed=facts)
            for (slot, settled), before, facts in zip(fresh.items(), found, pushed, strict=True)
            if before.state is not None or slot in recent
        ]
        wanted = [move for move in moves if move]
        done = states.move(wanted)
        num += sum(done)
        lost = {move.slot for move, is_done in zip(wanted, done, strict=True) if not is_done}
        fresh = {slot: settled for slot, settled in fresh.items() if slot in lost}
        if not fresh:
            return num
    raise TimeoutError(f"{len(fresh)} states were moved by others {MAX_ROUNDS} times in a row")


def _move(slot: Slot, state: Kept, *, found: Found, recent: Sequence[Fact], pushed: Sequence[Fact]) -> Move | None:
    """The fresh state with every fact since its horizon, or the end of one of which nothing is known any more.

    None where a later day was settled, or there is nothing to move.
    """
    before, facts = state_of(VIEWS[slot.view], found), {fact.id: fact for fact in (*pushed, *recent)}
    gone = [fact.id for fact in sorted(facts.values(), key=lambda fact: fact.us) if not state.push(fact)]
    if before.horizon_us > state.horizon_us or (found.state is None and state.last_us == NEVER):
        return None
    if state.last_us == NEVER:
        return Move(slot, found.mark, body=b"", seen=b"", facts=[], us=0)
    kept = {fact.id for fact in pushed}
    return moved(slot, state, found.mark, facts=[f for f in recent if f.id not in kept], forgotten=gone)


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def _take_facts(connection: duckdb.DuckDBPyConnection, view: View, *, end_us: int) -> None:
    """The facts that are known by the end of the day, each with the kind that its id is made from."""
    selects = [f"SELECT *, '{kind}' AS kind FROM ({text.facts(replace(view, facts=(kind,)))})" for kind in view.facts]  # noqa: S608
    known = f"SELECT * FROM ({' UNION ALL '.join(selects)}) WHERE us < {end_us} AND known_us <= {end_us}"  # noqa: S608
    connection.execute(f"CREATE TEMP TABLE known AS {known}")


def _facts_since(connection: duckdb.DuckDBPyConnection, view: View, horizon_us: int) -> dict[str, list[Fact]]:
    columns = ", ".join(["entity", "kind", "event_id", "us", *view.sums, *view.values])
    facts: dict[str, list[Fact]] = {}
    for entity, kind, event_id, us, *said in _rows(
        connection,
        f"SELECT {columns} FROM part WHERE us >= {horizon_us}",  # noqa: S608
    ):
        sums = said[: len(view.sums)]
        values = tuple(value_of(view, value) for value in said[len(view.sums) :])
        id_ = fact_id(kind, event_id, us, sums[view.sums.index("is_fraud")] if kind == "verdicts" else None)
        facts.setdefault(entity, []).append(Fact(us, id_, tuple(sums), values))
    return facts


def _settled(connection: duckdb.DuckDBPyConnection, view: View, horizon_us: int) -> dict[str, Kept]:
    if view.template == "profile":
        return _settled_profiles(connection, view, horizon_us)
    states: dict[str, Kept] = {}

    def of(entity: str) -> State:
        state = states.setdefault(entity, State(Shape(view), horizon_us=horizon_us))
        assert isinstance(state, State)
        return state

    for entity, last_us in _rows(connection, f"SELECT entity, max(us) FROM part WHERE us < {horizon_us} GROUP BY ALL"):  # noqa: S608
        of(entity).settled_us = last_us
    for number, window in enumerate(view.windows):
        sums = "".join(f", sum({column})" for column in view.sums)
        bounds = f"us >= {window.start(horizon_us)} AND us < {horizon_us}"
        grain = f"us - us % {window.grain_us}"
        cells = f"SELECT entity, {grain}, count(*){sums} FROM part WHERE {bounds} GROUP BY ALL"  # noqa: S608
        for entity, start, *cell in _rows(connection, cells):
            of(entity).cells[number][start] = cell
    for number, (place, _) in enumerate(Shape(view).distincts):
        column = view.values[place]
        bounds = f"us < {horizon_us} AND {column} IS NOT NULL"
        for entity, value, last_us in _rows(
            connection,
            f"SELECT entity, {column}, max(us) FROM part WHERE {bounds} GROUP BY ALL",  # noqa: S608
        ):
            of(entity).seen[number][value_of(view, value)] = last_us
    return states


def _settled_profiles(connection: duckdb.DuckDBPyConnection, view: View, horizon_us: int) -> dict[str, Kept]:
    """Of what was said before the day only the last moment's matters."""
    columns = ", ".join(["event_id", *view.values])
    last = f"""
        SELECT entity, us, {columns} FROM part WHERE us < {horizon_us}
        QUALIFY us = max(us) OVER (PARTITION BY entity)
    """  # noqa: S608
    states: dict[str, Kept] = {}
    for entity, us, event_id, *values in _rows(connection, last):
        profile = states.setdefault(entity, Profile(horizon_us))
        assert isinstance(profile, Profile)
        profile.facts.append(Fact(us, fact_id("signups", event_id, us), (), tuple(values)))
    return states


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    cursor = connection.execute(query)
    while rows := cursor.fetchmany(100_000):
        yield from rows
