"""The HTTP routes: take a request apart, let the moderator decide, put the answer together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.bulk import BulkAnswer
from serving.errors import REFUSED, refusal_of
from serving.events import InvalidEvent, parse_body, parse_events
from serving.guard import Refusal, error_body
from serving.live import Live
from serving.moderator import Moderator
from serving.openai_shape import moderation, parse_moderation
from serving.openapi import document
from serving.past import Past
from serving.queues import Call
from serving.record import DECISION_ID, answer, decode, time_of
from serving.vault import Vault
from serving.verdict import replay

_DOCS = Path(__file__).with_name("docs.html")
_DOCS_SCRIPT = Path(__file__).with_name("docs.js")


class Tried(Protocol):
    """What the service knows of who challenges its champions."""

    def status(self) -> list[dict[str, Any]]: ...  # noqa: D102


class Followed(Protocol):
    """What the service knows of the releases that it should serve."""

    def status(self) -> dict[str, Any]: ...  # noqa: D102
    def reopen(self, detector: str, *, release: str, policy_digest: str, hotfix: str = "") -> Live: ...  # noqa: D102


@dataclass(frozen=True)
class Desk:
    """Everything the routes need; made once by the service's constructor."""

    moderator: Moderator
    follower: Followed
    trials: Tried
    vault: Vault | None
    past: Past
    spool: Path


async def decisions(request: Request) -> Response:
    """Decide one event, or many of one detector."""
    desk = _desk(request)
    detector, raw = parse_body(await request.body())
    champion = desk.moderator.champion(detector)
    events = parse_events(champion.live.spec.events, raw)
    records = await desk.moderator.decide(champion, events, call=_call(request))
    return _json({"decisions": [answer(record) for record in records]})


async def moderations(request: Request) -> Response:
    """Decide texts in the shape of OpenAI's endpoint."""
    desk = _desk(request)
    detector, texts = parse_moderation(await request.body())
    champion = desk.moderator.champion(detector)
    if champion.live.spec.text is None:
        raise InvalidEvent("`model` names a detector that reads no text")
    raw = [msgspec.json.encode({"text": text}) for text in texts]
    records = await desk.moderator.decide(champion, parse_events("requests", raw), call=_call(request))
    return _json(moderation(records, detector))


async def scores(request: Request) -> Response:
    """Score events of one detector and do nothing else: nothing is decided, logged or counted."""
    desk = _desk(request)
    detector, raw = parse_body(await request.body())
    champion = desk.moderator.champion(detector)
    events = desk.moderator.known(champion.live, parse_events(champion.live.spec.events, raw))
    assessed = await champion.assess(events, _call(request))
    return _json({"detector": detector, "release": champion.live.release, "scores": [a.scores for a in assessed]})


async def bulk(request: Request) -> BulkAnswer:
    """Decide a stream of events."""
    desk = _desk(request)
    detector = request.query_params.get("detector", "")
    desk.moderator.champion(detector)
    return BulkAnswer(desk.moderator, detector, call=_call(request), spool=desk.spool)


async def decision(request: Request) -> Response:
    """What was decided, from what and why; with `replay=true`, decided again."""
    desk, decision_id = _desk(request), request.path_params["decision_id"]
    found = None
    if DECISION_ID.match(decision_id):
        found = await asyncio.to_thread(_find, desk, decision_id)
    if not found:
        raise Refusal(404, "not_found", "no decision has this id")
    record = decode(found)
    seen = msgspec.to_builtins(record)
    seen["text"] = "kept, encrypted" if record.text else "not kept"
    if request.query_params.get("replay") == "true":
        seen["replay"] = await asyncio.to_thread(_replay, desk, found)
    return _json(seen)


async def releases(request: Request) -> Response:
    """Which release and policy answers for each detector, and what could not be loaded."""
    desk = _desk(request)
    return _json({**desk.follower.status(), "challengers": desk.trials.status()})


async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(_desk(request).moderator.metrics.render(), media_type="text/plain; version=0.0.4")


async def openapi(_: Request) -> Response:
    """The OpenAPI document of these routes."""
    return _json(document())


async def docs(_: Request) -> Response:
    """The documentation page; it loads nothing from elsewhere."""
    return FileResponse(_DOCS, media_type="text/html")


async def docs_script(_: Request) -> Response:
    """What draws the documentation page."""
    return FileResponse(_DOCS_SCRIPT, media_type="text/javascript")


async def index(_: Request) -> Response:
    """People who open the service in a browser want the documentation."""
    return RedirectResponse("/docs")


ROUTES = [
    Route("/v1/decisions", decisions, methods=["POST"]),
    Route("/v1/decisions/{decision_id}", decision, methods=["GET"]),
    Route("/v1/scores", scores, methods=["POST"]),
    Route("/v1/moderations", moderations, methods=["POST"]),
    Route("/v1/bulk", bulk, methods=["POST"]),
    Route("/v1/releases", releases, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/openapi.json", openapi, methods=["GET"]),
    Route("/docs", docs, methods=["GET"]),
    Route("/docs.js", docs_script, methods=["GET"]),
    Route("/", index, methods=["GET"]),
]


TABLES = "/v1/tables"
BENTOML = ("/healthz", "/livez", "/readyz", "/docs.json", "/schema.json", TABLES)


def build_app(bentoml: ASGIApp | None) -> Starlette:
    """The routes as one ASGI app, with BentoML's own behind them; `app.state.desk` is set by whoever runs it."""
    refused = dict.fromkeys(REFUSED, _refused)
    theirs = [Route(path, bentoml) for path in BENTOML] if bentoml else []
    app = Api(routes=[*ROUTES, *theirs], exception_handlers=refused)
    app.router.redirect_slashes = False
    return app


class Api(Starlette):
    """Calls the three most asked routes itself: Starlette's layers before them took a fifth of the event loop's time.

    What these did for a route is done here, where an error is a refusal, and by the guard, where it is any other. So it
    is for bulk streams, whose errors Starlette would hide from the guard once the answer has begun.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        endpoint = _DIRECT.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
            return
        request = Request({**scope, "app": self}, receive)
        try:
            response = await endpoint(request)
        except REFUSED as error:
            response = await _refused(request, error)
        await response(scope, receive, send)


_DIRECT: Mapping[str, Callable[[Request], Awaitable[ASGIApp]]] = {
    "/v1/decisions": decisions,
    "/v1/scores": scores,
    "/v1/moderations": moderations,
    "/v1/bulk": bulk,
}


async def _refused(request: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    headers = {name.decode(): value.decode() for name, value in refusal.headers}
    body = error_body(refusal, request.scope["mews.request_id"])
    return Response(body, refusal.status, headers, media_type="application/json")


def _find(desk: Desk, decision_id: str) -> bytes | None:
    """In the log or, when it went there, in the lake: in the order in which it moves."""
    at_us = time_of(decision_id)
    return desk.moderator.log.find(decision_id, at_us) or desk.past.find(decision_id, at_us)


def _replay(desk: Desk, found: bytes) -> dict[str, Any]:
    record = decode(found)
    policy = record.policy
    live = desk.follower.reopen(
        record.detector, release=record.release, policy_digest=policy.digest, hotfix=policy.hotfix
    )
    return replay(live, record, desk.vault)


def _desk(request: Request) -> Desk:
    return request.app.state.desk


def _call(request: Request) -> Call:
    return Call(request.scope["mews.request_id"], request.scope["caller"])


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
