"""The service's way to what is known about entities: the online states of one home, in SQLite or in Redis."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from feature_repo.online import OnlineFeatures
from feature_repo.push import push
from feature_repo.states import open_states
from feature_repo.windows import SERVICES, VIEWS
from serving.live import Event

READ_WITHIN_S = 0.05  # a request does not wait longer; the policy then decides without features
PUSH_WITHIN_S = 5.0


class Known:
    """Readers of feature services, and pushes; `stores` names Redis (HOST:PORT,db=N), or SQLite where it is empty."""

    def __init__(self, home: Path, stores: Mapping[str, str]) -> None:
        redis = stores.get("redis", "")
        self._read = open_states(home, redis=redis, deadline_s=READ_WITHIN_S)
        self._push = open_states(home, redis=redis, deadline_s=PUSH_WITHIN_S)

    def reader(self, service: str) -> OnlineFeatures:
        """The features of one service."""
        return OnlineFeatures(self._read, [VIEWS[name] for name in SERVICES[service].views])

    def push(self, events: Sequence[tuple[str, Event]]) -> None:
        """Let events of (table, event) count for whatever is read next."""
        push(self._push, events)
