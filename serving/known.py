"""The service's way to what is known about entities: the online states of one home, in SQLite or in Redis."""

from collections.abc import Mapping
from pathlib import Path

from feature_repo.online import OnlineFeatures
from feature_repo.states import open_states
from feature_repo.windows import SERVICES, VIEWS

READ_WITHIN_S = 0.05  # a request does not wait longer; the policy then decides without features


class Known:
    """Readers of feature services; `stores` names Redis (HOST:PORT,db=N), or SQLite where it is empty."""

    def __init__(self, home: Path, stores: Mapping[str, str]) -> None:
        self._states = open_states(home, redis=stores.get("redis", ""), deadline_s=READ_WITHIN_S)

    def reader(self, service: str) -> OnlineFeatures:
        """The features of one service."""
        return OnlineFeatures(self._states, [VIEWS[name] for name in SERVICES[service].views])
