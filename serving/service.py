"""The service: one process that answers for every detector, as a plain ASGI app mounted in a BentoML service."""

import os
import threading
from pathlib import Path

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.parts import Parts


class Door:
    """The ASGI app that BentoML mounts; the service's constructor puts the real one behind it."""

    behind: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        await self.behind(scope, receive, send)


_door = Door()


@bentoml.service(
    name="mews",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30, "max_concurrency": 1024},
)
@bentoml.asgi_app(_door, path="/")
class Mews:
    """Reads the environment and builds the parts; a release is loaded as soon as one is deployed."""

    def __init__(self) -> None:
        home, keys = Path(os.environ.get("MEWS_HOME", ".mews")).absolute(), os.environ.get("MEWS_API_KEYS_FILE")
        stores = {"redis": os.environ.get("MEWS_REDIS", ""), "registry_uri": os.environ.get("MEWS_FEAST_REGISTRY", "")}
        self.parts = Parts(home, keys=Path(keys) if keys else None, stores=stores)
        _door.behind = self.parts.door
        threading.Thread(target=self.parts.run, name="follower", daemon=True).start()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Leave nothing unfinished."""
        self.parts.close()

    def __is_ready__(self) -> bool:
        return self.parts.follower.is_ready
