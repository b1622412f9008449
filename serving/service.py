"""The service: one BentoML service for every detector, with our own door before BentoML's layers."""

import gc
import os
import threading
from pathlib import Path
from typing import Any, TypeVar

import bentoml
import msgspec
from _bentoml_sdk import Service
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.service.openapi.specification import PathItem
from bentoml._internal.utils.cattr import bentoml_cattr
from starlette.types import ASGIApp

from serving.api import TABLES
from serving.bento import SEALED, adopt
from serving.events import MAX_EVENTS, InvalidEvent, parse_events
from serving.front import Door, stand_before
from serving.logs import log_as_json
from serving.moderator import NotServed
from serving.openapi import document
from serving.parts import Parts
from serving.tracing import Tracing, provider

T = TypeVar("T")

_door = Door()


class Doored(Service[T]):
    """A BentoML service whose requests meet our door first.

    Mounted inside instead, each request would pass BentoML's tracing, its time limit (which ends a long bulk request
    with 504) and its context, which together cost as much as a decision.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The app that the server calls."""
        if found := provider():
            BentoMLContainer.tracer_provider.set(found)
        _door.tracing = Tracing(found)
        _door.bentoml = super().to_asgi(is_main)
        stand_before(_door)
        return _door

    @property
    def openapi_spec(self) -> Any:
        """BentoML's document with our routes in it."""
        spec, ours = super().openapi_spec, document()
        spec.paths.update({path: bentoml_cattr.structure(item, PathItem) for path, item in ours["paths"].items()})
        spec.components.setdefault("schemas", {}).update(ours["components"]["schemas"])
        return spec


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
        home, keys = Path(os.environ.get("MEWS_HOME") or ".mews").absolute(), os.environ.get("MEWS_API_KEYS_FILE")
        stores = {"redis": os.environ.get("MEWS_REDIS", ""), "registry_uri": os.environ.get("MEWS_FEAST_REGISTRY", "")}
        log_as_json()
        adopt(Path(__file__).parents[1] / SEALED, home)
        self.parts = Parts(
            home, keys=Path(keys) if keys else None, stores=stores, bentoml=_door.bentoml, tracing=_door.tracing
        )
        _door.open(self.parts.door, room=self.parts.room)
        self.parts.tick()  # a worker accepts nothing before it has what is deployed
        gc.collect()
        gc.freeze()  # a full collection walked all modules, and no request was answered meanwhile (measured: 75 ms)
        threading.Thread(target=self.parts.run, name="follower", daemon=True).start()

    @bentoml.on_deployment
    @staticmethod
    def supervise() -> None:
        """Run once by the process that starts the workers; what it needs would only make a worker start later."""
        from serving.supervision import look_often

        look_often()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Leave nothing unfinished."""
        self.parts.close()

    @bentoml.api(route=TABLES)
    def score_table(self, detector: str, rows: list[dict[str, Any]]) -> list[dict[str, float] | None]:
        """Score a small table of events, for whoever works with BentoML's client; nothing is decided or kept.

        No task: BentoML keeps a task's input, which is what people wrote, in the clear on disk.
        """
        moderator = self.parts.moderator
        try:
            if len(rows) > MAX_EVENTS:
                raise InvalidEvent(f"`rows`: {len(rows)} rows; at most {MAX_EVENTS} go into one request")
            live = moderator.champion(detector).live
            events = parse_events(live.spec.events, [msgspec.json.encode(row) for row in rows])
        except NotServed as error:
            raise bentoml.exceptions.NotFound(str(error)) from None
        except InvalidEvent as error:
            raise bentoml.exceptions.InvalidArgument(str(error)) from None
        return [assessed.scores for assessed in live.assess(moderator.known(live, events))]

    def __is_ready__(self) -> bool:
        return self.parts.follower.is_ready
