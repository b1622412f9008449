"""The service's way to what is known about entities: Feast, opened when a release first needs it."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from serving.live import Event, FeatureRow, FeaturesUnavailable

if TYPE_CHECKING:
    from feature_repo.online import OnlineFeatures

_NOT_ANSWERED = (redis.RedisError, sqlite3.Error, OSError)


class Known:
    """Readers of feature services over one store, and pushes into it; `stores` goes to `open_store`."""

    def __init__(self, home: Path, stores: Mapping[str, str]) -> None:
        self._home, self._stores = home, stores

    def reader(self, service: str) -> "Reader":
        """The features of one service."""
        return Reader(self._open(service))

    def push(self, events: Sequence[tuple[str, Event]]) -> None:
        """Let events of (table, event) count for whatever is read next."""
        for table in {table for table, _ in events}:
            self._any.push(table, [event for other, event in events if other == table])

    def _open(self, service: str) -> "OnlineFeatures":
        from feature_repo.online import OnlineFeatures

        return OnlineFeatures(self._store, service)

    @cached_property
    def _any(self) -> "OnlineFeatures":
        from feature_repo.windows import SERVICES

        return self._open(next(iter(SERVICES)))  # a push moves every view, whichever service it comes through

    @cached_property
    def _store(self) -> Any:
        from feature_repo.store import open_store

        return open_store(self._home, **self._stores)


class Reader:
    """Reads features, or says that the store does not answer; what the policy then does is visible in the answer."""

    def __init__(self, features: "OnlineFeatures") -> None:
        self._features = features

    def read(self, entities: list[dict[str, str | None]], at_us: int) -> Sequence[FeatureRow]:
        """The features of each event's entities at a moment; raises FeaturesUnavailable."""
        try:
            return self._features.read(entities, at_us)
        except _NOT_ANSWERED as error:
            raise FeaturesUnavailable(type(error).__name__) from error
