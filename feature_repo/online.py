"""What is known about entities at a moment: states in an online store, read without Feast or a query engine."""

import sqlite3
import time
from collections.abc import Sequence
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
from feature_repo.view import DAY, View
from feature_repo.windows import VIEWS

TTL_US = 32 * DAY  # past the longest window every count is zero anyway
PAUSE_S = 0.2  # after a failure the store is left alone for as long, so that requests do not all wait for it
NOT_ANSWERED = (RedisError, sqlite3.Error, OSError)
Status = Literal["present", "missing", "expired"]
Content = bytes | memoryview
Found = dict[tuple[str, str], list[Content | None]]  # the states of each entity, in the order of its views


class FeaturesUnavailable(Exception):
    """The online store did not answer within its deadline."""


@dataclass(frozen=True)
class FeatureRow:
    """The features of one event's entities, and which of them are not present: missing or expired."""

    values: dict[str, Any]
    absent: dict[str, Status]

    @property
    def status(self) -> dict[str, Status]:
        """Of each feature, whether it was present, missing or expired."""
        return {name: self.absent.get(name, "present") for name in self.values}


class OnlineFeatures:
    """Reads the views of one feature service, for all events of a call at once."""

    def __init__(self, states: States, views: Sequence[View]) -> None:
        self._states = states
        self._columns: dict[str, tuple[Column, ...]] = {}
        self._views: list[_Readable] = []
        for view in views:
            before = self._columns.get(view.entity, ())
            self._views.append(_Readable(view, place=len(before)))
            self._columns[view.entity] = (*before, (view.name, layout.STATE))
        self._names = tuple(name for view in self._views for name in view.names)
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
                self._count_each_other(table, events, found)
        except NOT_ANSWERED as error:
            self._not_before_s = time.monotonic() + PAUSE_S
            raise FeaturesUnavailable(type(error).__name__) from error
        return [self._row(event, moment, found) for event, moment in zip(events, at_us, strict=True)]

    def _fetch(self, events: Sequence[Event]) -> Found:
        keys = {(name, key) for event in events for name in self._columns if (key := event.get(name)) is not None}
        asked = [Asked(name, key, self._columns[name]) for name, key in keys]
        return dict(zip(keys, self._states.read(asked), strict=True))

    def _count_each_other(self, table: str, events: Sequence[Event], found: Found) -> None:
        """Let the states that these events move and read be as if all of them had been pushed."""
        places = {view.name: (view.entity, view.place) for view in self._views}
        facts: dict[Slot, dict[int, Fact]] = {}
        for event in events:
            for slot, fact in facts_of(table, event):
                if slot.view in places:
                    facts.setdefault(slot, {})[fact.id] = fact
        shared = {
            slot: list(of_slot.values())
            for slot, of_slot in facts.items()
            if len(of_slot) > 1 or VIEWS[slot.view].template == "profile"
        }
        for (slot, of_slot), before in zip(shared.items(), self._states.find(shared), strict=True):
            state = state_of(VIEWS[slot.view], before)
            for fact in of_slot:
                if fact.id not in before.known:
                    state.push(fact)
            entity, place = places[slot.view]
            found[entity, slot.key][place] = state.to_bytes()[0] + bytes(MARK)

    def _row(self, event: Event, at_us: int, found: Found) -> FeatureRow:
        values: list[Any] = []
        absent: dict[str, Status] = {}
        for view in self._views:
            key = event.get(view.entity)
            status: Status = "missing"
            if key is None:
                values += view.unasked
            else:
                status, answered = view.at(found[view.entity, key][view.place], at_us)
                values += answered
            if status != "present":
                absent.update(dict.fromkeys(view.names, status))
        return FeatureRow(dict(zip(self._names, values, strict=True)), absent)


class _Readable:
    """One view as requests read it."""

    def __init__(self, view: View, *, place: int) -> None:
        self.entity, self.name, self.place, self._view = view.entity, view.name, place, view
        self.names = [feature.name for feature in view.features]
        self.unasked = [None] * len(self.names)
        self._answers = None if view.template == "profile" else Answers(view)
        self._nothing = nothing(view).to_bytes()[0] + bytes(MARK)

    def at(self, content: Content | None, at_us: int) -> tuple[Status, list[Any]]:
        """The features at a moment, from a state as it was found."""
        if content is None:
            return "missing", self._answer(self._nothing, at_us)[0]
        answered, known_us = self._answer(content, at_us)
        if known_us + TTL_US < at_us:
            return "expired", self._answer(self._nothing, at_us)[0]
        return "present", answered

    def _answer(self, content: Content, at_us: int) -> tuple[list[Any], int]:
        """The features, and the last moment of which the state knows."""
        if self._answers is None:
            profile = Profile.from_bytes(content[:-MARK])
            return profile.at(self._view, at_us), max(profile.horizon_us, profile.last_us)
        words = memoryview(content).cast("q")  # the last one is the mark
        return self._answers.at(words, at_us), max(words[0], words[1])
