"""How often an account was acted on lately: what leads it up a policy's ladder, the same in every worker.

The decision log is the truth and the strikes are made from it: a decision strikes after it is on disk and before it is
answered, once by its id, in the store that all workers share. What a killed worker or a store that was away left out is
made up for from log and lake, when a policy begins to be served.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_repo.online import NOT_ANSWERED
from serving.decision_log import logged
from serving.record import Record, Role
from serving.strike_stores import Asked, Strike, StrikeStore
from training.policy import Action, Policy

_log = logging.getLogger(__name__)
_DAY_US = 86_400_000_000
_AGAIN_S = 60.0
_TOGETHER = 1000  # strikes of the past; 10 ms in SQLite
_ACTED: tuple[Role, ...] = ("champion", "canary")
_HARD = [action for action in Action if action.severity > Action.LOG.severity]

Event = Mapping[str, Any]


@dataclass
class Counts:
    """The strikes of some accounts, and those that decisions under way add; None: the store was silent."""

    known: dict[tuple[str, str], int | None] = field(default_factory=dict)
    fresh: list[Strike] = field(default_factory=list)

    def of(self, policy: Policy, event: Event) -> int | None:
        """Those of an event's account under a policy; an event of no account has none."""
        return self.known.get((policy.name, event.get("account_id") or ""), 0)

    def note(self, policy: Policy, record: Record) -> None:
        """Let a decision count for the events that are decided after it."""
        if (strike := strike_of(policy, record)) is None:
            return
        self.fresh.append(strike)
        before = self.known.get((strike.policy, strike.account))
        if before is not None:
            self.known[strike.policy, strike.account] = before + 1


class Strikes:
    """The strikes of all policies that have a ladder; any number of processes and threads may count and add at once.

    `past` is where decisions are kept: the folder of the log, and the root of the lake.
    """

    def __init__(self, store: StrikeStore, *, past: tuple[Path, Path] | None = None) -> None:
        self._store, self._past = store, past
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="strikes")
        self._owed: list[Strike] = []
        self._made_up: set[tuple[str, int]] = set()
        self._not_before_s = 0.0

    @property
    def num_owed(self) -> int:
        """Strikes that the store has not taken yet."""
        return len(self._owed)

    def of(self, events: Sequence[tuple[Policy, Event]]) -> Counts:
        """What counts against the accounts of some events now."""
        at_us = time.time_ns() // 1000
        asked = {
            Asked(policy.name, account, at_us - window_us(policy))
            for policy, event in events
            if has_ladder(policy) and (account := event.get("account_id"))
        }
        if not asked:
            return Counts()
        return Counts(self._thread.submit(self._count, list(asked)).result())

    def add(self, strikes: Sequence[Strike]) -> None:
        """Let them count for whatever is decided next, wherever it is; what the store does not take is owed to it."""
        if strikes:
            self._kept(strikes)

    def tick(self, policies: Iterable[Policy]) -> None:
        """Pay what is owed, and make up for what these policies have missed; call it now and then, from one thread.

        The past is read here and kept a part at a time, so that whoever decides meanwhile waits for one part at most.
        """
        if not self._kept([]) or self._past is None or time.monotonic() < self._not_before_s:
            return
        for policy in policies:
            key = (policy.name, window_us(policy))
            if not has_ladder(policy) or key in self._made_up:
                continue
            try:
                missed = _missed(policy, *self._past)
            except Exception as error:  # noqa: BLE001  # an edge: no file of the past keeps a service from answering
                _log.error("strikes of the past cannot be read: %s", type(error).__name__)
                self._not_before_s = time.monotonic() + _AGAIN_S
                continue
            if all(self._kept(missed[at : at + _TOGETHER]) for at in range(0, len(missed), _TOGETHER)):
                self._made_up.add(key)

    def close(self) -> None:
        """Let what is under way be done."""
        self._thread.shutdown()

    def _kept(self, strikes: Sequence[Strike]) -> bool:
        return self._thread.submit(self._add, strikes).result()

    def _count(self, asked: Sequence[Asked]) -> dict[tuple[str, str], int | None]:
        found: Sequence[int | None]
        try:
            found = self._store.count(asked)
        except NOT_ANSWERED as error:
            _log.warning("strikes cannot be read: %s", type(error).__name__)
            found = [None] * len(asked)
        return {(one.policy, one.account): number for one, number in zip(asked, found, strict=True)}

    def _add(self, strikes: Sequence[Strike]) -> bool:
        owed = [*self._owed, *strikes]
        try:
            if owed:
                self._store.add(owed)
        except NOT_ANSWERED as error:
            _log.warning("strikes cannot be kept: %s", type(error).__name__)
            self._owed = owed
            return False
        self._owed = []
        return True


def has_ladder(policy: Policy) -> bool:
    """Whether strikes change anything under a policy."""
    return any(label.ladder for label in policy.labels.values())


def window_us(policy: Policy) -> int:
    """For how long a strike counts: never longer than its decision is kept."""
    return min(policy.strike_days, policy.privacy.retention_days or policy.strike_days) * _DAY_US


def strike_of(policy: Policy, record: Record) -> Strike | None:
    """The strike that a decision is, if it is one."""
    account = record.event.get("account_id")
    if not (account and has_ladder(policy) and record.action in _HARD):
        return None
    return Strike(policy.name, account, record.decision_id, record.at_us, record.at_us + window_us(policy))


def _missed(policy: Policy, log: Path, lake: Path) -> list[Strike]:
    """Everything that was decided under a policy and still counts; in the order in which decisions move."""
    since_us = time.time_ns() // 1000 - window_us(policy)
    records = (r for r in logged(log, since_us=since_us) if r.policy.name == policy.name and r.role in _ACTED)
    strikes = [strike for record in records if (strike := strike_of(policy, record))]
    return strikes + _of_the_lake(policy, lake, since_us=since_us)


def _of_the_lake(policy: Policy, root: Path, *, since_us: int) -> list[Strike]:
    import pyarrow.parquet as pq

    from feature_repo.lake import Lake, day_of
    from feature_repo.tables import DECISIONS

    asked = [
        ("policy", "=", policy.name),
        ("role", "in", list(_ACTED)),
        ("action", "in", [str(action) for action in _HARD]),
        ("at_us", ">", since_us),
    ]
    rows: list[dict[str, Any]] = []
    for file in Lake(root).files("log", DECISIONS.name, first=day_of(since_us)):
        columns = ["decision_id", "at_us", "account_id"]
        rows += pq.read_table(file, columns=columns, filters=asked, partitioning=None).to_pylist()
    return [
        Strike(policy.name, row["account_id"], row["decision_id"], row["at_us"], row["at_us"] + window_us(policy))
        for row in rows
        if row["account_id"]
    ]
