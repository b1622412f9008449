"""The door of the service: key, scope, rate, media type, size and time of the body, headers, one log line."""

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.auth import OWN_LOGIN, PUBLIC, Key, KeyRing, RateLimit, scope_of
from serving.record import fresh_id
from serving.room import Room
from serving.tracing import Telemetry

log = logging.getLogger("mews.requests")
STREAMED = frozenset({"/v1/bulk"})
ENTERED = "mews.entered"  # in the scope of a request that holds a place already
_ROUTES = PUBLIC | {"/v1/decisions", "/v1/scores", "/v1/moderations", "/v1/bulk", "/v1/releases", "/v1/tables"}
_MEDIA_TYPES = frozenset({"application/json", "application/jsonl", "application/x-ndjson"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}\Z")
_SCHEME = re.compile(rb"\Abearer +", re.IGNORECASE)  # RFC 9110, section 11.1: case does not count
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    ),
]


@dataclass
class Refusal(Exception):
    """Why a request goes no further; `kind` is for programs, `message` for people."""

    status: int
    kind: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Limits:
    """How much one request may bring, and how long it may take to bring it."""

    max_body: int = 1 << 20
    body_timeout_s: float = 15.0
    max_streams: int = 8
    max_arriving: int = 1024  # whose bodies are read, by callers with a key
    max_strangers: int = 64  # and by anybody


def retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    """The header that says when to come again."""
    return ((b"retry-after", str(seconds).encode()),)


def busy() -> Refusal:
    """There is no place for one more request."""
    return Refusal(429, "overloaded", "too many requests are under way", retry_after(1))


def failed() -> Refusal:
    """A bug; nothing of the request is repeated."""
    return Refusal(500, "internal_error", "the service failed; name the request id")


def error_body(refusal: Refusal, request_id: str) -> bytes:
    """An error as it is answered everywhere; the shape is that of the OpenAI API."""
    error = {"message": refusal.message, "type": refusal.kind, "param": None, "code": refusal.kind}
    return msgspec.json.encode({"error": {**error, "request_id": request_id}})


def refused(refusal: Refusal, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers that only a refusal has, and its body."""
    body = error_body(refusal, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if refusal.status in (408, 413) else []
    return [*headers, *refusal.headers], body


def every_answer(request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers that every answer has."""
    return [*_HEADERS, (b"x-request-id", request_id.encode())]


class Guard:
    """ASGI middleware; what passes carries `caller` and `mews.request_id` in its scope and its body in memory."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing, telemetry: Telemetry, limits: Limits, room: Room) -> None:
        self._app, self._keys, self._limits = app, keys, limits
        self._metrics, self._tracing = telemetry
        self._rates, self._room = RateLimit(), room
        self._streams, self._arriving, self._strangers = (
            Room(limit=limit, in_time_s=float("inf"), most=limit)
            for limit in (limits.max_streams, limits.max_arriving, limits.max_strangers)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        exchange = _Exchange(send, _request_id(headers))
        started = time.perf_counter()
        with self._tracing.request(headers, scope["method"]) as finish:
            await self._answer(scope, headers, receive, exchange=exchange)
            finish(_route(scope["path"]), exchange.status)
        self._note(scope, exchange, time.perf_counter() - started)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, *, exchange: "_Exchange"
    ) -> None:
        entered = scope.get(ENTERED)
        try:
            caller = self._admit(scope, headers)
            with _place(self._until_read(scope)):
                receive = await self._bounded(scope, headers, receive=receive)
            with _place(self._while_answered(scope)):
                known = {"caller": caller, "mews.request_id": exchange.request_id}
                await self._app({**scope, **known}, receive, exchange.send)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except ClientGone:
            exchange.status = 499
        except Exception as error:  # noqa: BLE001  # the last edge: a bug is answered without a word of the request
            exchange.error = _where(error)
            await exchange.refuse(failed())
        finally:
            if entered is not None:
                self._room.leave(entered)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        if _is_open(scope):
            return "public"
        key = self._keys.find(_SCHEME.sub(b"", headers.get(b"authorization", b"")))
        if key is None:
            raise Refusal(401, "unauthorized", "missing or unknown API key", ((b"www-authenticate", b"Bearer"),))
        self._authorize(key, scope)
        return key.name

    def _authorize(self, key: Key, scope: Scope) -> None:
        needed = scope_of(scope["method"], scope["path"])
        if needed not in key.scopes:
            raise Refusal(403, "forbidden", f"this API key lacks the scope {needed!r}")
        if wait_s := self._rates.wait_s(key):
            raise Refusal(429, "rate_limited", f"more than {key.per_second:g} requests per second", retry_after(wait_s))

    def _until_read(self, scope: Scope) -> Room | None:
        """Where a request is until its body is here, which may take long and is not our work.

        Whoever shows no key takes no place from those who do.
        """
        if scope.get(ENTERED) is not None or scope["method"] in ("GET", "HEAD") or scope["path"] in STREAMED:
            return None
        return self._strangers if _is_open(scope) else self._arriving

    def _while_answered(self, scope: Scope) -> Room | None:
        """Where it is then; a stream, which lasts, has a place of its own kind, and a probe needs none."""
        if scope.get(ENTERED) is not None or scope["path"] in PUBLIC:
            return None
        return self._streams if scope["path"] in STREAMED else self._room

    async def _bounded(self, scope: Scope, headers: dict[bytes, bytes], *, receive: Receive) -> Receive:
        if scope["method"] in ("GET", "HEAD"):
            return receive
        _check_media(headers)
        if scope["path"] in STREAMED:
            return receive
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                body = await self._read(headers, receive)
        except TimeoutError:
            raise Refusal(408, "too_slow", f"the body took longer than {self._limits.body_timeout_s:g} s") from None
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()  # afterwards only http.disconnect

        return replay

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        announced = headers.get(b"content-length", b"0")
        too_large = not announced.isdigit() or int(announced) > self._limits.max_body
        chunks, size, more = list[bytes](), 0, True
        while more and not too_large:  # a chunked body announces no length, so it is counted as it comes
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            too_large, more = size > self._limits.max_body, message.get("more_body", False)
        if too_large:
            raise Refusal(413, "too_large", f"the body is larger than {self._limits.max_body} bytes")
        return b"".join(chunks)

    def _note(self, scope: Scope, exchange: "_Exchange", seconds: float) -> None:
        route = _route(scope["path"])
        self._metrics.responses.labels(route, exchange.status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if exchange.status >= 400 and not (exchange.error == "overloaded" or route in PUBLIC):
            # those are counted: a line for each probe or for each refusal under overload would cost what is short
            line: dict[str, Any] = {"route": route, "status": exchange.status, "ms": round(seconds * 1000, 1)}
            log.warning("refused", extra={**line, "request_id": exchange.request_id, "error": exchange.error})


@contextmanager
def _place(room: Room | None) -> Iterator[None]:
    """Hold a place in a room, if it is to be in one."""
    if room is None:
        yield
        return
    if (entered := room.enter()) is None:
        raise busy()
    try:
        yield
    finally:
        room.leave(entered)


def _is_open(scope: Scope) -> bool:
    """Whether a request needs no API key."""
    return scope["path"] in PUBLIC or scope["path"].startswith(OWN_LOGIN)


class ClientGone(Exception):
    """The client left before its request was complete."""


class _Exchange:
    """What is sent back for one request: adds headers, remembers the status, and never answers twice."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id = send, request_id
        self.status, self.error = 0, ""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), *every_answer(self.request_id)]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        self.error = self.error or refusal.kind
        if self.status:  # the answer has begun; it is counted as what it became
            self.status = refusal.status
            return
        headers, body = refused(refusal, self.request_id)
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _route(path: str) -> str:
    if path.startswith("/v1/decisions/"):
        return "/v1/decisions/{id}"
    return path if path in _ROUTES else "other"


def _where(error: Exception) -> str:
    """The type and place of an error, without its message, which may repeat what a person wrote."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno} in {frame.name}"


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.match(given) else fresh_id()


def _check_media(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refusal(415, "unsupported_media", "a compressed body is not accepted")
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode(errors="replace")
    if media not in _MEDIA_TYPES:
        raise Refusal(415, "unsupported_media", f"content-type must be one of {', '.join(sorted(_MEDIA_TYPES))}")
