"""A bulk exchange without a server and a release: what is sent and decided is said by the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
from starlette.types import Message

from serving.bulk import BulkAnswer
from serving.moderator import Moderator, NotServed
from serving.queues import Call
from serving.record import Record
from tests.serving.decisions import record


@dataclass
class Deciding:
    """Allows everything and remembers what it was asked in one call; at some calls, counted from 0, it fails.

    After `served_for` calls no release is served.
    """

    fails_at: dict[int, Exception] = field(default_factory=dict)
    served_for: float = float("inf")
    num_calls: int = 0
    asked: list[list[str]] = field(default_factory=list)

    def champion(self, detector: str) -> object:
        if self.num_calls >= self.served_for:
            raise NotServed(f"nothing is served for {detector}")
        return _Texts()

    async def decide(self, _: object, events: Sequence[dict[str, Any]], *, call: Call) -> list[Record]:
        await asyncio.sleep(0)
        self.num_calls += 1
        if error := self.fails_at.get(self.num_calls - 1):
            raise error
        self.asked.append([event["event_id"] for event in events])
        return [record({**event, "text": None}, request_id=call.request_id) for event in events]


class _Texts:
    """A champion, as far as a bulk exchange looks at one."""

    class live:  # noqa: N801  # stands where an attribute stands
        class spec:  # noqa: N801
            events = "requests"


@dataclass
class Exchange:
    """One exchange: `chunks` come in, `taken` tells when the client takes what is sent to it."""

    spool: Path
    deciding: Deciding = field(default_factory=Deciding)
    taken: Callable[[], Awaitable[object]] | None = None
    sent: bytearray = field(default_factory=bytearray)
    messages: list[Message] = field(default_factory=list)

    async def run(self, chunks: AsyncIterator[bytes]) -> list[dict[str, Any]]:
        """Let the exchange end; the lines that were answered."""

        async def receive() -> Message:
            async for chunk in chunks:
                return {"type": "http.request", "body": chunk, "more_body": True}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if self.taken and message.get("body"):
                await self.taken()
            self.messages.append(message)
            self.sent += message.get("body", b"")

        moderator = cast(Moderator, self.deciding)
        await BulkAnswer(moderator, "content", call=Call("request", "tests"), spool=self.spool)({}, receive, send)
        return self.answered()

    def answered(self) -> list[dict[str, Any]]:
        """The lines that the client has by now."""
        return [msgspec.json.decode(line) for line in bytes(self.sent).splitlines()]


def event(number: int, text: str = "a") -> bytes:
    """One line."""
    return msgspec.json.encode({"text": text, "event_id": f"e{number}"}) + b"\n"
