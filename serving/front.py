"""The first look at what a connection brings: under overload a request is refused before any of it is parsed.

At five times what the service can answer, refusing must cost a small part of answering, or nothing else gets done: so
it comes before the parsing of a request, its task and its walk to the guard.
"""

import re
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.guard import ENTERED, busy, every_answer, refused
from serving.record import fresh_id
from serving.room import Room
from serving.tracing import Tracing

_ASKED = re.compile(rb"POST /v1/(?:decisions|moderations|scores) HTTP/1\.1\r\n")
_FRAMING = re.compile(  # the length, and whatever else says how a message ends or what follows it
    rb"\n(?:content-length[ \t]*:[ \t]*(\d+)\r|transfer-encoding|expect|upgrade|connection:(?! keep-alive\r))",
    re.IGNORECASE,
)


def _template(request_id: str) -> bytes:
    headers, body = refused(busy(), request_id)
    lines = [name + b": " + value + b"\r\n" for name, value in (*headers, *every_answer(request_id))]
    return b"".join([b"HTTP/1.1 429 Too Many Requests\r\n", *lines, b"\r\n", body])


_SOME_ID = fresh_id()
_BUSY = _template(_SOME_ID)


class Door:
    """What the server calls: our guarded routes, and BentoML's app for everything else; opened by the constructor."""

    bentoml: ASGIApp
    tracing: Tracing
    guarded: ASGIApp
    room: Room

    def open(self, guarded: ASGIApp, *, room: Room) -> None:
        """Let requests in."""
        self.guarded, self.room = guarded, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; BentoML's app also runs the service's constructor, as the server starts."""
        app = self.guarded if scope["type"] == "http" else self.bentoml
        await app(scope, receive, send)


class Front(HttpToolsProtocol):
    """uvicorn's protocol, which gives each request that came whole a place, or refuses it; all others are as ever.

    Only between two messages is anything taken for the beginning of one, and only one whose length is beyond doubt is
    refused: this must never see other requests in a stream of bytes than the parser would.
    """

    door: Door

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_between_messages = True
        self._entered: float | None = None

    def data_received(self, data: bytes) -> None:
        """Take a place for a request, or refuse it."""
        if self._is_idle and is_whole(data):
            self._entered = self.door.room.enter()
            if self._entered is None:
                self.transport.write(_BUSY.replace(_SOME_ID.encode(), fresh_id().encode()))
                self.door.room.num_turned_away += 1
                self.on_response_complete()  # so that the connection is kept as long as after an answer
                return
        super().data_received(data)
        if self._entered is not None:  # what looked like a request was none
            self.door.room.leave(self._entered)
            self._entered = None

    @property
    def _is_idle(self) -> bool:
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and self._is_between_messages and not self.flow.write_paused

    def on_message_begin(self) -> None:
        """The parser met the first byte of a request."""
        super().on_message_begin()
        self._is_between_messages = False

    def on_headers_complete(self) -> None:
        """The request goes to the guard, and its place with it."""
        if self._entered is not None:
            self.scope[ENTERED], self._entered = self._entered, None  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The parser met the last byte of a request."""
        super().on_message_complete()
        self._is_between_messages = True


def is_whole(data: bytes) -> bool:
    """Whether these bytes are one request for decisions or scores, from its first byte to its last."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0 or not _ASKED.match(data):
        return False
    lengths = _FRAMING.findall(data, 0, head_end + 2)
    return len(lengths) == 1 and lengths[0] != b"" and len(data) == head_end + 4 + int(lengths[0])


def stand_before(door: Door) -> None:
    """Let servers of this process that ask for uvicorn's usual protocol get ours."""
    Front.door = door
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Front.__name__}"
