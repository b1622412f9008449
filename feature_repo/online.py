"""What is known about entities at a moment: states in an online store, read without Feast or a query engine."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import RedisError

from feature_repo import layout
from feature_repo.answer import Answers
from feature_repo.facts import Event, Slot, facts_of
from feature_repo.profile import Profile
from feature_repo.push import nothing, state_of
from feature_repo.state import Fact
from feature_repo.states import MARK, Asked, Column, States
from feature_repo.windows import DAY, VIEWS, View

TTL_US = 32 * DAY  # past the longest window every count is zero anyway
PAUSE_S = 0.2  # after a failure the store is left alone for as long, so that requests do not all wait for it
NOT_ANSWERED = (RedisError, sqlite3.Error, OSError)
Status = Literal["present", "missing", "expired"]
Content = bytes | memoryview


class FeaturesUnavailable(Exception):
    """The online store did not answer within its deadline."""


@dataclass(frozen=True)
class FeatureRow:
    """The features of one event's entities, and for each whether it was present, missing or expired."""

    values: dict[str, Any]
    status: dict[str, Status]


class OnlineFeatures:
    """Reads the views of one feature service, for all events of a call at once."""

    def __init__(self, states: States, views: Sequence[View]) -> None:
        self._states = states
        self._views = [_Readable(view) for view in views]
        self._columns: dict[str, tuple[Column, ...]] = {}
        for view in views:
            self._columns[view.entity] = (*self._columns.get(view.entity, ()), (view.name, layout.STATE))
        self._not_before_s = 0.0

    def read(self, events: Sequence[Event], at_us: Sequence[int], *, table: str | None = None) -> list[FeatureRow]:
        """f(entity, t) of the entities of each event at its moment, in one round trip; raises FeaturesUnavailable.

        An unknown entity has the features of one without a past; where an event names no entity they are null. With
        the table of the events, each also counts for those of the same call that come after it, which takes a second
        round trip where entities repeat.
        """
        if time.monotonic() < self._not_before_s:
            raise FeaturesUnavailable("it did not answer a moment ago")
        try:
            found = self._fetch(events)
            if table == "accounts" or (table and len(events) > 1):  # a signup knows itself
                found |= self._with_each_other(table, events)
        except NOT_ANSWERED as error:
            self._not_before_s = time.monotonic() + PAUSE_S
            raise FeaturesUnavailable(type(error).__name__) from error
        return [self._row(event, moment, found) for event, moment in zip(events, at_us, strict=True)]

    def _fetch(self, events: Sequence[Event]) -> dict[tuple[str, str], Content | None]:
        keys = {(name, key) for event in events for name in self._columns if (key := event.get(name)) is not None}
        asked = [Asked(name, key, self._columns[name]) for name, key in keys]
        return {
            (view, one.key): content
            for one, contents in zip(asked, self._states.read(asked), strict=True)
            for (view, _), content in zip(one.columns, contents, strict=True)
        }

    def _with_each_other(self, table: str, events: Sequence[Event]) -> dict[tuple[str, str], Content | None]:
        """The states that these events move and read, as if all of them had been pushed."""
        read = {view.name for view in self._views}
        facts: dict[Slot, dict[int, Fact]] = {}
        for event in events:
            for slot, fact in facts_of(table, event):
                if slot.view in read:
                    facts.setdefault(slot, {})[fact.id] = fact
        shared = {
            slot: list(of_slot.values())
            for slot, of_slot in facts.items()
            if len(of_slot) > 1 or VIEWS[slot.view].template == "profile"
        }
        moved: dict[tuple[str, str], Content | None] = {}
        for (slot, of_slot), found in zip(shared.items(), self._states.find(shared), strict=True):
            state = state_of(VIEWS[slot.view], found)
            for fact in of_slot:
                if fact.id not in found.known:
                    state.push(fact)
            moved[slot] = state.to_bytes()[0] + bytes(MARK)
        return moved

    def _row(self, event: Event, at_us: int, found: Mapping[tuple[str, str], Content | None]) -> FeatureRow:
        values: dict[str, Any] = {}
        statuses: dict[str, Status] = {}
        for view in self._views:
            key = event.get(view.entity)
            if key is None:
                values.update(view.unasked)
                status: Status = "missing"
            else:
                status, answered = view.at(found[view.name, key], at_us)
                values.update(zip(view.names, answered, strict=True))
            statuses.update(view.statuses[status])
        return FeatureRow(values, statuses)


class _Readable:
    """One view as requests read it."""

    def __init__(self, view: View) -> None:
        self.name, self.entity, self._view = view.name, view.entity, view
        self.names = [feature.name for feature in view.features]
        kinds: tuple[Status, ...] = ("present", "missing", "expired")
        self.statuses = {status: dict.fromkeys(self.names, status) for status in kinds}
        self.unasked = dict.fromkeys(self.names)
        self._answers = None if view.template == "profile" else Answers(view)
        self._nothing = nothing(view).to_bytes()[0]

    def at(self, content: Content | None, at_us: int) -> tuple[Status, list[Any]]:
        """The features at a moment, from a state as it was found."""
        if content is None:
            return "missing", self._answer(self._nothing, at_us)[0]
        answered, known_us = self._answer(content[:-MARK], at_us)
        if known_us + TTL_US < at_us:
            return "expired", self._answer(self._nothing, at_us)[0]
        return "present", answered

    def _answer(self, content: Content, at_us: int) -> tuple[list[Any], int]:
        """The features, and the last moment of which the state knows."""
        if self._answers is None:
            profile = Profile.from_bytes(content)
            return profile.at(self._view, at_us), max(profile.horizon_us, profile.last_us)
        words = memoryview(content).cast("q")
        return self._answers.at(words, at_us), max(words[0], words[1])
