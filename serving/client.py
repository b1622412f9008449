"""A small client of the service, blocking and asynchronous: typed answers, retries where they are safe, bulk streams.

A request is tried again when the service said that it did nothing (429, 503) or was not reached. An answer that was
lost on its way is not: the events may have been decided.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from serving.record import Answer

_RETRIED = frozenset({429, 503})
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout)
_LONGEST_WAIT_S = 30.0
_BULK = {"content-type": "application/jsonl"}
_SILENCE_S = 300.0  # between answers to bulk: the service may decide a batch of long texts for minutes


class Decisions(msgspec.Struct, frozen=True):
    """The answer to `POST /v1/decisions`."""

    decisions: list[Answer]


class Scores(msgspec.Struct, frozen=True):
    """The answer to `POST /v1/scores`; null where the online store did not answer."""

    detector: str
    release: str
    scores: list[dict[str, float] | None]


class LineError(msgspec.Struct, frozen=True):
    """A line of a bulk request that was no event, and why."""

    line: int
    error: dict[str, str]


class _Refusal(msgspec.Struct, frozen=True):
    type: str
    message: str
    request_id: str | None = None


class _Refused(msgspec.Struct, frozen=True):
    error: _Refusal


class _Ended(msgspec.Struct, frozen=True):
    ended_at_line: int
    error: _Refusal


class ServiceError(Exception):
    """The service refused or failed; `kind` is for programs, the message for people."""

    def __init__(self, status: int, kind: str, message: str, request_id: str | None) -> None:
        super().__init__(f"{status} {kind}: {message} (request {request_id})")
        self.status, self.kind, self.request_id = status, kind, request_id


class StreamEnded(Exception):
    """The answers to a bulk request ended too soon; `line`, counted from 1, is the first that was not answered."""

    def __init__(self, line: int, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message} (from line {line} on nothing is answered)")
        self.line, self.kind = line, kind


@dataclass(frozen=True)
class Retries:
    """How often to try again, and how long to wait where the service names no time or a shorter one."""

    most: int = 4
    first_wait_s: float = 0.1

    def wait_s(self, attempt: int, response: httpx.Response | None) -> float | None:
        """Seconds until the next attempt; none when there is no next one."""
        if attempt >= self.most or (response is not None and response.status_code not in _RETRIED):
            return None
        named_s = _seconds(response.headers.get("retry-after", "")) if response is not None else 0.0
        if named_s > _LONGEST_WAIT_S:
            return None
        wait_s = max(named_s, min(self.first_wait_s * 2**attempt, _LONGEST_WAIT_S))
        return wait_s * random.uniform(1.0, 1.5)  # not before the named time, and not all clients as one


class Client:
    """Asks and waits; `with Client(url, key) as client: client.decide("content", [{"text": "..."}])`."""

    def __init__(
        self, url: str, key: str, *, timeout_s: float = 10.0, retries: Retries | None = None, http: Any = None
    ) -> None:
        self._retries = retries or Retries()
        self._http: httpx.Client = http or httpx.Client(base_url=url, timeout=timeout_s)
        self._headers = {"authorization": f"Bearer {key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; nothing can be asked afterwards."""
        self._http.close()

    def decide(self, detector: str, events: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Decide events of one detector; raises ServiceError, and ValueError for an event that JSON cannot hold."""
        body = self._post("/v1/decisions", _body(detector, events))
        return msgspec.json.decode(body, type=Decisions).decisions

    def score(self, detector: str, events: Sequence[Mapping[str, Any]]) -> Scores:
        """Score events without deciding or keeping anything."""
        return msgspec.json.decode(self._post("/v1/scores", _body(detector, events)), type=Scores)

    def bulk(self, detector: str, events: Iterable[Mapping[str, Any]]) -> Iterator[Answer | LineError]:
        """Decide any number of events; nothing is tried again, since some may have been decided.

        Raises StreamEnded where the service cannot go on. An event that JSON cannot hold raises ValueError when its
        turn comes: those before it may have been decided.
        """
        lines = (_encoded(event, index) + b"\n" for index, event in enumerate(events))
        asked: Any = {"params": {"detector": detector}, "headers": self._headers | _BULK}
        asked["timeout"] = _patient(self._http.timeout)
        with self._http.stream("POST", "/v1/bulk", content=lines, **asked) as response:
            if response.status_code != 200:
                response.read()
                raise _error(response)
            yield from (_line(line) for line in response.iter_lines())

    def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        content, attempt = msgspec.json.encode(body), 0
        while True:
            response = self._try(path, content, is_last=attempt >= self._retries.most)
            if response is not None and response.status_code == 200:
                return response.content
            if (wait_s := self._retries.wait_s(attempt, response)) is None:
                assert response is not None  # the last attempt raises where there is no response
                raise _error(response)
            time.sleep(wait_s)
            attempt += 1

    def _try(self, path: str, content: bytes, *, is_last: bool) -> httpx.Response | None:
        try:
            return self._http.post(path, content=content, headers=self._headers | {"content-type": "application/json"})
        except _UNREACHED:
            if is_last:
                raise
            return None


class AsyncClient:
    """The same, awaited."""

    def __init__(
        self, url: str, key: str, *, timeout_s: float = 10.0, retries: Retries | None = None, http: Any = None
    ) -> None:
        self._retries = retries or Retries()
        self._http: httpx.AsyncClient = http or httpx.AsyncClient(base_url=url, timeout=timeout_s)
        self._headers = {"authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; nothing can be asked afterwards."""
        await self._http.aclose()

    async def decide(self, detector: str, events: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Decide events of one detector; raises ServiceError, and ValueError for an event that JSON cannot hold."""
        body = await self._post("/v1/decisions", _body(detector, events))
        return msgspec.json.decode(body, type=Decisions).decisions

    async def score(self, detector: str, events: Sequence[Mapping[str, Any]]) -> Scores:
        """Score events without deciding or keeping anything."""
        body = await self._post("/v1/scores", _body(detector, events))
        return msgspec.json.decode(body, type=Scores)

    async def bulk(self, detector: str, events: AsyncIterable[Mapping[str, Any]]) -> AsyncIterator[Answer | LineError]:
        """Decide any number of events; nothing is tried again, since some may have been decided.

        Raises StreamEnded where the service cannot go on. An event that JSON cannot hold raises ValueError when its
        turn comes: those before it may have been decided.
        """

        async def lines() -> AsyncIterator[bytes]:
            index = 0
            async for event in events:
                yield _encoded(event, index) + b"\n"
                index += 1

        asked: Any = {"params": {"detector": detector}, "headers": self._headers | _BULK}
        asked["timeout"] = _patient(self._http.timeout)
        async with self._http.stream("POST", "/v1/bulk", content=lines(), **asked) as response:
            if response.status_code != 200:
                await response.aread()
                raise _error(response)
            async for line in response.aiter_lines():
                yield _line(line)

    async def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        content, attempt = msgspec.json.encode(body), 0
        while True:
            response = await self._try(path, content, is_last=attempt >= self._retries.most)
            if response is not None and response.status_code == 200:
                return response.content
            if (wait_s := self._retries.wait_s(attempt, response)) is None:
                assert response is not None  # the last attempt raises where there is no response
                raise _error(response)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _try(self, path: str, content: bytes, *, is_last: bool) -> httpx.Response | None:
        headers = self._headers | {"content-type": "application/json"}
        try:
            return await self._http.post(path, content=content, headers=headers)
        except _UNREACHED:
            if is_last:
                raise
            return None


def _body(detector: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"detector": detector, "events": [msgspec.Raw(_encoded(e, index)) for index, e in enumerate(events)]}


def _encoded(event: Mapping[str, Any], index: int) -> bytes:
    """An event as JSON; raises ValueError, which repeats none of its text."""
    for name, value in event.items():
        if isinstance(value, float) and not math.isfinite(value):  # which would be sent as null
            raise ValueError(f"events[{index}].{name} is {value}; it must be a finite number")
    try:
        return msgspec.json.encode(event)
    except UnicodeEncodeError:
        raise ValueError(f"events[{index}] holds a lone surrogate; text must be valid Unicode") from None


def _patient(timeout: httpx.Timeout) -> tuple[float | None, ...]:
    """The limits of a client, in httpx's order; while it decides a batch, the service neither takes nor answers."""
    read_s, write_s = (limit and max(limit, _SILENCE_S) for limit in (timeout.read, timeout.write))
    return timeout.connect, read_s, write_s, timeout.pool


def _seconds(retry_after: str) -> float:
    """How long to wait as RFC 9110, section 10.2.3, says it: seconds or a date; 0 where it says neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _line(line: str) -> Answer | LineError:
    if line.startswith('{"ended_at_line":'):
        ended = msgspec.json.decode(line, type=_Ended)
        raise StreamEnded(ended.ended_at_line, ended.error.type, ended.error.message)
    if line.startswith('{"line":'):
        return msgspec.json.decode(line, type=LineError)
    return msgspec.json.decode(line, type=Answer)


def _error(response: httpx.Response) -> ServiceError:
    try:
        error = msgspec.json.decode(response.content, type=_Refused).error
    except (ValueError, RecursionError):  # something between us and the service answered
        return ServiceError(response.status_code, "unknown", response.reason_phrase, None)
    return ServiceError(response.status_code, error.type, error.message, error.request_id)
