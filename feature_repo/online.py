"""What is known about entities right now: states in Feast's online store, read and moved without a query engine."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import duckdb
import pandas as pd
from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo import text
from feature_repo.compute import bound_tables
from feature_repo.lake import DAY_US, Lake, start_us
from feature_repo.state import State
from feature_repo.windows import MICRO, SERVICES, VIEWS, View

TTL_US = 32 * DAY_US  # past the longest window every count is zero anyway
Status = Literal["present", "missing", "expired"]
_PUSHED = {
    "requests": ("requests",),
    "payments": ("payments",),
    "accounts": ("accounts", "signups"),
}


@dataclass(frozen=True)
class FeatureRow:
    """The features of one event's entities, and for each whether it was present, missing or expired."""

    values: dict[str, Any]
    status: dict[str, Status]


def state_view(view: View) -> str:
    """The Feast view that holds the states of a view."""
    return f"{view.name}_state"


class OnlineFeatures:
    """Reads the features of one service, and moves the states of every view that an event is a fact of."""

    def __init__(self, store: FeatureStore, service: str) -> None:
        self._states = _States(store)
        self._views = [VIEWS[name] for name in SERVICES[service].views]

    def read(self, entities: Sequence[Mapping[str, str | None]], at_us: int | None = None) -> list[FeatureRow]:
        """f(entity, at_us) of each event's entities; an unknown entity has the features of one without a past."""
        moment = time.time_ns() // 1000 if at_us is None else at_us
        rows = [FeatureRow({}, {}) for _ in entities]
        for view in self._views:
            keys = [entity.get(view.entity) for entity in entities]
            states = self._states.read(view, sorted({key for key in keys if key is not None}))
            for row, key in zip(rows, keys, strict=True):
                _fill(row, view, states.get(key) if key else None, is_asked=key is not None, at_us=moment)
        return rows

    def push(self, table: str, events: Iterable[Mapping[str, Any]]) -> None:
        """Let events count for whatever is read next; pushing one again changes nothing."""
        batch = list(events)
        for view in VIEWS.values():
            facts = [f for f in _PUSHED[table] if f in view.facts]
            mine = [e for e in batch if facts and e.get(view.entity) is not None and _is_fact(facts, e)]
            if mine:
                self._push(view, table, mine)

    def _push(self, view: View, table: str, events: Sequence[Mapping[str, Any]]) -> None:
        keys = sorted({str(e[view.entity]) for e in events})
        states = {key: State() for key in keys} | self._states.read(view, keys)
        moved = {
            str(e[view.entity])
            for e in events
            if states[e[view.entity]].push(f"{table}/{e['event_id']}", _fact(view, table, e))
        }
        self._states.write(view, {key: states[key] for key in sorted(moved)})


def materialize(lake: Lake, store: FeatureStore, day: date) -> dict[str, int]:
    """Rebuild the states of every entity from the lake up to the end of a day; what was pushed later stays."""
    states = _States(store)
    counts = {}
    for view in VIEWS.values():
        fresh = _from_lake(lake, view, day)
        for key, older in states.read(view, sorted(fresh)).items():
            fresh[key].keep_tail_of(older)
        states.write(view, fresh)
        counts[view.name] = len(fresh)
    return counts


class _States:
    """The states of all views in Feast's online store, by its own interface."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._provider = store._get_provider()
        self._tables = {view.name: store.get_feature_view(state_view(view)) for view in VIEWS.values()}

    def read(self, view: View, keys: Sequence[str]) -> dict[str, State]:
        """The states that exist."""
        if not keys:
            return {}
        asked = [EntityKey(join_keys=[view.entity], entity_values=[Value(string_val=key)]) for key in keys]
        answers = self._provider.online_read(self._store.config, self._tables[view.name], asked, ["state"])
        found = {}
        for key, (_, features) in zip(keys, answers, strict=True):
            if features and (content := features["state"].bytes_val):
                found[key] = State.from_bytes(content)
        return found

    def write(self, view: View, states: Mapping[str, State]) -> None:
        """Replace states."""
        if not states:
            return
        now = datetime.now(UTC)
        rows = [
            {view.entity: k, "state": s.to_bytes(), "event_timestamp": now, "created": now} for k, s in states.items()
        ]
        self._store.write_to_online_store(state_view(view), df=pd.DataFrame(rows))


def _fill(row: FeatureRow, view: View, state: State | None, *, is_asked: bool, at_us: int) -> None:
    is_expired = state is not None and max(state.horizon_us, _last_us(state)) + TTL_US < at_us
    known = State() if state is None or is_expired else state
    values = known.features(view, at_us) if is_asked else dict.fromkeys((f.name for f in view.features), None)
    status: Status = "expired" if is_expired else "missing" if state is None else "present"
    row.values.update(values)
    row.status.update(dict.fromkeys(values, status))


def _last_us(state: State) -> int:
    return max([state.latest.get("us", 0), *(fact["us"] for fact in state.tail.values())])


def _is_fact(facts: Sequence[str], event: Mapping[str, Any]) -> bool:
    return facts != ["signups"] or event.get("kind") == "signup"


def _fact(view: View, table: str, event: Mapping[str, Any]) -> dict[str, Any]:
    derived = {
        "us": event["event_us"],
        "amount_micros": int(event["amount"] * MICRO + 0.5) if table == "payments" else 0,
        "is_signup": int(event.get("kind") == "signup"),
    }
    return {name: derived.get(name, event.get(name)) for name in ("us", *view.sums, *view.values)}


def _from_lake(lake: Lake, view: View, day: date) -> dict[str, State]:
    horizon_us = start_us(day) + DAY_US
    states: dict[str, State] = {}

    def of(entity: str) -> State:
        return states.setdefault(entity, State(horizon_us))

    with lake.connect() as connection:
        bound_tables(connection, lake, view, first=day, last=day)
        known = f"SELECT * FROM ({text.facts(view)}) WHERE us < {horizon_us} AND known_us <= {horizon_us}"  # noqa: S608
        connection.execute(f"CREATE TEMP TABLE known AS {known}")
        for window in view.windows:
            sums = "".join(f", sum({s})::BIGINT" for s in view.sums)
            grain, start = f"us - us % {window.grain_us}", window.start(horizon_us)
            cells = f"SELECT entity, {grain}, count(*){sums} FROM known WHERE us >= {start} GROUP BY ALL"  # noqa: S608
            for entity, at, *cell in _rows(connection, cells):
                of(entity).grains.setdefault(window.name, {})[str(at)] = cell
        for column in view.values if view.windows else ():
            last = f"max(us - us % {view.windows[0].grain_us})"
            seen = f"SELECT entity, {column}, {last} FROM known WHERE {column} IS NOT NULL GROUP BY ALL"  # noqa: S608
            for entity, value, at in _rows(connection, seen):
                of(entity).seen.setdefault(column, {})[value] = at
        said = view.values if not view.windows else []
        names = ["us", *said]
        smallest = "".join(f", min({value})" for value in said)  # of one microsecond, as profile.sql.j2 takes it
        last_us = "SELECT entity, max(us) AS us FROM known GROUP BY entity"
        query = f"SELECT entity, us{smallest} FROM known JOIN ({last_us}) USING (entity, us) GROUP BY entity, us"  # noqa: S608
        for entity, *values in _rows(connection, query):
            of(entity).latest = dict(zip(names, values, strict=True))
    return states


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()
