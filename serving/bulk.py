"""Many events in one request of any length: JSON Lines in, JSON Lines out, in bounded memory."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec

from serving.events import InvalidEvent, parse_events
from serving.moderator import Call, Champion, Moderator
from serving.record import answer

MAX_LINE = 1 << 20
BATCH = 256
_CHUNK = 1 << 16


async def lines(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split a stream at newlines; a line over the limit ends it, since what follows cannot be trusted."""
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE:
            raise InvalidEvent(f"a line is longer than {MAX_LINE} bytes")
    if rest:
        yield rest


async def answers(
    moderator: Moderator, champion: Champion, *, stream: AsyncIterator[bytes], call: Call, spool: Path
) -> AsyncIterator[bytes]:
    """One line per event, in order: the answer, or the error of that line.

    Answers wait in a file until the whole request was read: a client that sends everything before it reads anything
    (most do) would otherwise stop reading, and both sides would wait for ever.
    """
    with tempfile.TemporaryFile(dir=spool) as waiting:
        async for batch in _batches(stream):
            waiting.write(b"".join(await _decide(moderator, champion, batch=batch, call=call)))
        waiting.seek(0)
        while chunk := waiting.read(_CHUNK):
            yield chunk


async def _batches(stream: AsyncIterator[bytes]) -> AsyncIterator[list[tuple[int, bytes | InvalidEvent]]]:
    batch: list[tuple[int, bytes | InvalidEvent]] = []
    number = 0
    try:
        async for line in lines(stream):
            number += 1
            if line.strip():
                batch.append((number, line))
            if len(batch) == BATCH:
                yield batch
                batch = []
    except InvalidEvent as error:
        batch.append((number + 1, error))
    if batch:
        yield batch


async def _decide(
    moderator: Moderator, champion: Champion, *, batch: list[tuple[int, bytes | InvalidEvent]], call: Call
) -> Iterator[bytes]:
    table = champion.live.spec.events
    parsed = [(number, _parsed(table, line)) for number, line in batch]
    events = [event for _, event in parsed if isinstance(event, dict)]
    decided = iter(await moderator.decide(champion, events, call=call) if events else [])
    return (_line(n, answer(next(decided)) if isinstance(e, dict) else e) for n, e in parsed)


def _parsed(table: str, line: bytes | InvalidEvent) -> dict[str, Any] | InvalidEvent:
    if isinstance(line, InvalidEvent):
        return line
    try:
        return parse_events(table, [line])[0]
    except InvalidEvent as error:
        return error


def _line(number: int, result: Any) -> bytes:
    if isinstance(result, InvalidEvent):
        result = {"line": number, "error": {"message": str(result), "type": "invalid_event"}}
    return msgspec.json.encode(result) + b"\n"
