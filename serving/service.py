"""The service: one process that answers for every detector, as a plain ASGI app mounted in a BentoML service."""

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import bentoml

from serving.api import Desk, build_app
from serving.auth import KeyRing
from serving.backlog import Backlog
from serving.decision_log import DecisionLog
from serving.follow import Follower
from serving.guard import Guard, Limits
from serving.live import FeatureReader
from serving.metrics import Metrics
from serving.moderator import Moderator
from serving.source import LedgerSource
from serving.vault import Vault

HOME = Path(os.environ.get("MEWS_HOME", ".mews")).absolute()
FOLLOW_EVERY_S = 1.0
_log = logging.getLogger(__name__)
METRICS = Metrics()
KEYS = KeyRing(Path(os.environ.get("MEWS_API_KEYS_FILE", HOME / "api_keys.json")))


app = build_app()


@bentoml.service(
    name="mews",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30, "max_concurrency": 1024},
)
@bentoml.asgi_app(app, path="/")
class Mews:
    """Builds what the routes need when the process starts; a release is loaded as soon as one is deployed."""

    def __init__(self) -> None:
        executor = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        vault = Vault(HOME / "keys")
        self.pushes: Backlog[tuple[str, Any]] = Backlog("features", _push)
        moderator = Moderator(
            log=DecisionLog(HOME / "decisions"), vault=vault, pushes=self.pushes, executor=executor, metrics=METRICS
        )
        self.follower = Follower(LedgerSource(HOME, _reader), moderator.install, metrics=METRICS)
        app.state.desk = Desk(moderator, self.follower, vault, HOME / "cache")

        threading.Thread(target=self._follow, name="follower", daemon=True).start()

    def _follow(self) -> None:
        while True:
            self.follower.poll()
            try:
                KEYS.refresh()
            except (OSError, ValueError) as error:  # the keys that are known stay; releases are followed all the same
                _log.error("the file of API keys cannot be read: %s", type(error).__name__)
            time.sleep(FOLLOW_EVERY_S)

    def __is_ready__(self) -> bool:
        return self.follower.is_ready


Mews.add_asgi_middleware(  # type: ignore[attr-defined]  # a method of the service that the decorator makes
    Guard, keys=KEYS, metrics=METRICS, limits=Limits()
)


@cache
def _store() -> Any:
    from feature_repo.store import open_store

    redis, registry = os.environ.get("MEWS_REDIS"), os.environ.get("MEWS_FEAST_REGISTRY")
    online = {"type": "redis", "connection_string": redis} if redis else None
    return open_store(HOME, online=online, registry={"registry_type": "sql", "path": registry} if registry else None)


@cache
def _reader(feature_service: str) -> FeatureReader:
    from feature_repo.online import OnlineFeatures

    return OnlineFeatures(_store(), feature_service)


def _push(events: list[tuple[str, Any]]) -> None:
    from feature_repo.online import OnlineFeatures
    from feature_repo.windows import SERVICES

    reader = OnlineFeatures(_store(), next(iter(SERVICES)))
    for table in {table for table, _ in events}:
        reader.push(table, [event for other, event in events if other == table])
