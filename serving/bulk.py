"""Many events in one request of any length: JSON Lines in, JSON Lines out, in bounded memory."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from serving.batcher import Overloaded
from serving.errors import REFUSED, refusal_of
from serving.events import InvalidEvent, parse_events
from serving.guard import ClientGone, Refusal, failed
from serving.lines import MAX_LINE, Batch, Batches
from serving.moderator import Champion, Moderator
from serving.queues import Call
from serving.record import Answer, Record, answer

IDLE_S = 60.0
AGAIN_S = 0.1
QUIET_S = 0.05  # after which what has arrived is decided: its client may wait for that before it sends more
MAX_UNREAD = 1 << 30
_CHUNK = 1 << 16


class BulkAnswer:
    """The answer to a stream of events: each line leaves as soon as it is decided and the client takes it.

    What the client does not take yet waits in a file, so that reading its events never waits for it: most clients read
    nothing before they have sent everything, and both sides would wait for ever. Both may last. The exchange ends when
    no event comes for 60 s, when the client takes nothing for 60 s after the last event, or when it leaves 1 GiB. What
    is refused because too much is waiting is tried again for 60 s. What is decided together is decided by the release
    that is served by then. An answer that has begun and cannot go on ends with a line that names the error and, as
    `ended_at_line`, the first line that is not answered.
    """

    def __init__(self, moderator: Moderator, detector: str, *, call: Call, spool: Path) -> None:
        self._moderator, self._detector, self._call, self._spool = moderator, detector, call, spool
        self._next = 1  # the first line that is not answered

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Read, decide and answer at the same time; what ends it early is raised when the client was told."""
        with Unread(self._spool) as unread:
            reading = asyncio.create_task(self._read_all(receive, unread))
            reply = _Reply(send, reading)
            try:
                await reply.send_all(unread)
            except ClientGone:
                raise
            except REFUSED as error:
                refusal = refusal_of(error)
                await reply.fail(refusal, self._next)
                raise refusal from error
            except Exception:
                await reply.fail(failed(), self._next)
                raise
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read_all(self, receive: Receive, unread: "Unread") -> None:
        async with aclosing(_received(receive)) as chunks:
            try:
                await self._decide_all(chunks, unread)
            except Exception as error:  # noqa: BLE001  # carried to the task that answers
                unread.end(error)
                async for _ in chunks:  # a client that sends everything first learns of it only then
                    pass
            else:
                unread.end()

    async def _decide_all(self, chunks: AsyncIterator[bytes], unread: "Unread") -> None:
        batches = Batches()
        async for chunk in chunks:
            await self._answer(batches.add(chunk) if chunk else batches.waiting(), unread)
        await self._answer(batches.end(), unread)

    async def _answer(self, batches: Iterable[Batch], unread: "Unread") -> None:
        for batch in batches:
            champion = self._moderator.champion(self._detector)
            parsed = [(number, _parsed(champion.live.spec.events, line)) for number, line in batch]
            events = [event for _, event in parsed if isinstance(event, dict)]
            decided = iter(await self._decide(champion, events) if events else [])
            unread.write(b"".join(_line(n, answer(next(decided)) if isinstance(e, dict) else e) for n, e in parsed))
            self._next = batch[-1][0] + 1

    async def _decide(self, champion: Champion, events: list[dict[str, Any]]) -> list[Record]:
        clock = asyncio.get_running_loop().time
        last = clock() + IDLE_S
        while True:
            try:
                return await self._moderator.decide(champion, events, call=self._call)
            except Overloaded:  # and none of them is decided
                if clock() > last:
                    raise
            await asyncio.sleep(AGAIN_S)


class Unread:
    """Bytes on their way from one task to another, through a file."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__
        self._num_written = self._num_read = 0
        self._news = asyncio.Event()
        self._is_over, self._error = False, None  # type: tuple[bool, Exception | None]

    def __enter__(self) -> "Unread":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Add to the end."""
        if self._num_written - self._num_read > MAX_UNREAD:
            raise Refusal(413, "too_large", f"{MAX_UNREAD} bytes of answers were not read")
        self._file.seek(self._num_written)
        self._num_written += self._file.write(data)
        self._news.set()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; an error is raised where the bytes are read."""
        self._is_over, self._error = True, error
        self._news.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is written, as it is written."""
        while True:
            self._news.clear()
            while self._num_read < self._num_written:
                self._file.seek(self._num_read)
                chunk = self._file.read(min(_CHUNK, self._num_written - self._num_read))
                self._num_read += len(chunk)
                if self._num_read == self._num_written:
                    self._file.truncate(0)
                    self._num_read = self._num_written = 0
                yield chunk
            if self._is_over:
                break
            await self._news.wait()
        if self._error:
            raise self._error


class _Reply:
    """Sends what is answered; waits for the client as long as its events are read, and 60 s afterwards."""

    def __init__(self, send: Send, reading: asyncio.Task[None]) -> None:
        self._send, self._reading = send, reading
        self._is_begun = False

    async def send_all(self, unread: Unread) -> None:
        """Send all that is written, then end."""
        async for chunk in unread.chunks():
            await self._add(chunk)
        await self._end()

    async def fail(self, refusal: Refusal, line: int) -> None:
        """End with an error; an answer that has not begun is left to who can still give it a status."""
        if self._is_begun:
            await self._add(_error("ended_at_line", line, refusal.message, kind=refusal.kind))
            await self._end()

    async def _begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            headers = [(b"content-type", b"application/jsonl")]
            await self._wait({"type": "http.response.start", "status": 200, "headers": headers})

    async def _add(self, data: bytes) -> None:
        await self._begin()
        await self._wait({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self) -> None:
        await self._begin()
        await self._wait({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(self, message: Message) -> None:
        sending = asyncio.ensure_future(self._send(message))
        try:
            await asyncio.wait({sending, self._reading}, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(IDLE_S):
                await sending
        except TimeoutError:
            raise ClientGone from None
        finally:
            sending.cancel()


async def _received(receive: Receive) -> AsyncGenerator[bytes]:
    """What comes; an empty chunk where nothing more comes for a moment."""
    more = True
    while more:
        receiving = asyncio.ensure_future(receive())
        try:
            if not (await asyncio.wait({receiving}, timeout=QUIET_S))[0]:
                yield b""
            async with asyncio.timeout(IDLE_S):
                message = await receiving
        except TimeoutError:
            raise Refusal(408, "too_slow", f"nothing came for {IDLE_S:g} s") from None
        finally:
            receiving.cancel()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _parsed(table: str, line: bytes) -> dict[str, Any] | InvalidEvent:
    if len(line) > MAX_LINE:
        return InvalidEvent(f"the line is longer than {MAX_LINE} bytes")
    try:
        return parse_events(table, [line])[0]
    except InvalidEvent as error:
        return error


def _line(number: int, result: Answer | InvalidEvent) -> bytes:
    if isinstance(result, InvalidEvent):
        return _error("line", number, str(result), kind="invalid_event")
    return msgspec.json.encode(result) + b"\n"


def _error(name: str, number: int, message: str, *, kind: str) -> bytes:
    return msgspec.json.encode({name: number, "error": {"message": message, "type": kind}}) + b"\n"
