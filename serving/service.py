"""The service: one BentoML service for every detector, with our own door before BentoML's layers."""

import os
import threading
from pathlib import Path
from typing import TypeVar

import bentoml
from _bentoml_sdk import Service
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.logs import log_as_json
from serving.parts import Parts

T = TypeVar("T")


class Door:
    """What the server calls: our guarded routes, and BentoML's app for everything else; opened by the constructor."""

    bentoml: ASGIApp
    guarded: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; BentoML's app also runs the service's constructor, as the server starts."""
        app = self.guarded if scope["type"] == "http" else self.bentoml
        await app(scope, receive, send)


_door = Door()


class Doored(Service[T]):
    """A BentoML service whose requests meet our door first.

    Mounted inside instead, each request would pass BentoML's tracing, its time limit (which ends a long bulk request
    with 504) and its context, which together cost as much as a decision.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The app that the server calls."""
        _door.bentoml = super().to_asgi(is_main)
        return _door


@bentoml.service(
    name="mews",
    service_class=Doored,
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Mews:
    """Reads the environment and builds the parts; a release is loaded as soon as one is deployed."""

    def __init__(self) -> None:
        home, keys = Path(os.environ.get("MEWS_HOME", ".mews")).absolute(), os.environ.get("MEWS_API_KEYS_FILE")
        stores = {"redis": os.environ.get("MEWS_REDIS", ""), "registry_uri": os.environ.get("MEWS_FEAST_REGISTRY", "")}
        log_as_json()
        self.parts = Parts(home, keys=Path(keys) if keys else None, stores=stores, bentoml=_door.bentoml)
        _door.guarded = self.parts.door
        threading.Thread(target=self.parts.run, name="follower", daemon=True).start()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Leave nothing unfinished."""
        self.parts.close()

    def __is_ready__(self) -> bool:
        return self.parts.follower.is_ready
