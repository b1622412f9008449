import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from serving.bundle import Bundle
from serving.client import AsyncClient, Client, LineError, Retries, ServiceError, StreamEnded
from serving.parts import Parts
from serving.record import Answer
from tests.serving.service.conftest import Team
from tests.serving.service.served import served
from tests.serving.service.test_service import BENIGN, SPAM

NUM_BULK = 20_000


class Refusing:
    """Says that it is busy some times, and is the service afterwards."""

    def __init__(self, app: object, *, times: int) -> None:
        self._app, self.left = app, times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.left -= 1
        if self.left < 0:
            await self._app(scope, receive, send)  # type: ignore[operator]
            return
        await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def test_the_client_decides_scores_and_tries_again_what_was_not_done(parts: Parts, first: Bundle, key: str) -> None:
    parts.tick()
    door = Refusing(parts.door, times=3)

    with Client("http://testserver", key, http=TestClient(door)) as client:
        decisions = client.decide("content", [{"text": SPAM}, {"text": BENIGN}])
        scores = client.score("content", [{"text": SPAM}])

    assert [decision.action for decision in decisions] == ["block", "allow"]
    assert scores.release == first.digest
    assert scores.scores == [decisions[0].scores]


def test_a_refusal_names_what_is_wrong_and_is_not_tried_again(parts: Parts, first: Bundle, key: str) -> None:
    parts.tick()

    with (
        Client("http://testserver", key, http=TestClient(parts.door)) as client,
        pytest.raises(ServiceError) as refusal,
    ):
        client.decide("content", [{"txt": SPAM}])

    assert (refusal.value.status, refusal.value.kind) == (400, "invalid_request")


def test_a_service_that_stays_away_is_an_error_in_the_end() -> None:
    with (
        Client("http://127.0.0.1:9", "key", retries=Retries(most=2, first_wait_s=0.01)) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.decide("content", [{"text": "a"}])


class Unreached(httpx.MockTransport):
    """Cannot be reached the first times, in this way, and decides nothing afterwards."""

    def __init__(self, error: type[httpx.TransportError], *, times: int) -> None:
        super().__init__(self._answer)
        self._error, self.left = error, times

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.left -= 1
        if self.left >= 0:
            raise self._error("not reached", request=request)
        return httpx.Response(200, json={"decisions": []})


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout])
def test_a_service_that_was_not_reached_is_tried_again(error: type[httpx.TransportError]) -> None:
    retries = Retries(most=2, first_wait_s=0.01)

    async def ask() -> list[Answer]:
        http = httpx.AsyncClient(base_url="http://mews", transport=Unreached(error, times=2))
        async with AsyncClient("", "key", http=http, retries=retries) as client:
            return await client.decide("content", [{"text": "a"}])

    http = httpx.Client(base_url="http://mews", transport=Unreached(error, times=2))
    with Client("", "key", http=http, retries=retries) as client:
        assert client.decide("content", [{"text": "a"}]) == []
    assert asyncio.run(ask()) == []


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError])
def test_an_answer_that_was_lost_is_not_asked_for_again(error: type[httpx.TransportError]) -> None:
    http = httpx.Client(base_url="http://mews", transport=Unreached(error, times=1))

    with Client("", "key", http=http) as client, pytest.raises(error):
        client.decide("content", [{"text": "a"}])


def waits_s(retry_after: str | bytes) -> list[float | None]:
    answer = httpx.Response(429, headers=[(b"retry-after", retry_after)])
    return [Retries().wait_s(0, answer) for _ in range(100)]


@pytest.mark.parametrize("is_date", [True, False])
def test_the_client_waits_for_the_time_that_the_service_names_and_a_little_more(is_date: bool) -> None:
    waits = waits_s(formatdate(time.time() + 11, usegmt=True) if is_date else "10")

    assert all(wait_s is not None and 9.5 <= wait_s <= 17 for wait_s in waits)
    assert len(set(waits)) > 50


@pytest.mark.parametrize("retry_after", ["120", "9" * 400, "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_the_client_gives_up_where_the_named_time_is_above_its_longest_wait(retry_after: str) -> None:
    assert set(waits_s(retry_after)) == {None}


@pytest.mark.parametrize(
    "retry_after", [b"\xb2", b"", b"soon", b"-5", b"Wed, 21 Oct 2015 07:28:00 GMT", b"1 Jan 99999999999999999999 0:0"]
)
def test_the_client_waits_its_own_time_where_the_service_names_none(retry_after: bytes) -> None:
    assert all(wait_s is not None and 0.1 <= wait_s <= 0.15 for wait_s in waits_s(retry_after))


def answering(status: int, content: bytes) -> httpx.Client:
    """What something between the client and the service answers."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    return httpx.Client(base_url="http://proxy", transport=transport)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"error": "too many"}', "unknown"),
        (b'{"error": null}', "unknown"),
        (b'{"error": {"type": 5, "message": "full"}}', "unknown"),
        (b'{"error": {"type": "full", "message": "\xff"}}', "unknown"),
        (b"[" * 10**5, "unknown"),
        (b"[]", "unknown"),
        (b"<html>", "unknown"),
        (b'{"error": {"type": "full", "message": "try later"}}', "full"),
    ],
)
def test_an_error_of_something_else_on_the_way_is_a_service_error_too(content: bytes, kind: str) -> None:
    with Client("", "key", http=answering(502, content)) as client, pytest.raises(ServiceError) as refusal:
        client.decide("content", [{"text": "a"}])

    assert (refusal.value.status, refusal.value.kind, refusal.value.request_id) == (502, kind, None)


class Noting(httpx.MockTransport):
    """Answers nothing to bulk, and keeps the limits of time that it was asked with."""

    def __init__(self) -> None:
        super().__init__(lambda _: httpx.Response(200))
        self.limits_s: list[dict[str, float | None]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.limits_s.append(request.extensions["timeout"])
        return super().handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.limits_s.append(request.extensions["timeout"])
        return await super().handle_async_request(request)


async def streamed(events: list[dict[str, object]]) -> AsyncIterator[dict[str, object]]:
    for event in events:
        yield event


@pytest.mark.parametrize(("timeout_s", "long_s"), [(1.0, 300.0), (900.0, 900.0)])
def test_bulk_waits_minutes_for_an_answer_but_not_for_ever(timeout_s: float, long_s: float) -> None:
    noting = Noting()

    async def ask() -> None:
        http = httpx.AsyncClient(base_url="http://mews", transport=noting, timeout=timeout_s)
        async with AsyncClient("", "key", http=http) as client:
            assert [answer async for answer in client.bulk("content", streamed([{"text": "a"}]))] == []

    http = httpx.Client(base_url="http://mews", transport=noting, timeout=timeout_s)
    with Client("", "key", http=http) as client:
        assert list(client.bulk("content", [{"text": "a"}])) == []
    asyncio.run(ask())

    assert noting.limits_s == [{"connect": timeout_s, "read": long_s, "write": long_s, "pool": timeout_s}] * 2


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ({"text": "a secret \ud800"}, r"events\[1\] holds a lone surrogate"),
        ({"text": "a secret", "amount": float("nan")}, r"events\[1\]\.amount is nan"),
        ({"text": "a secret", "amount": float("-inf")}, r"events\[1\]\.amount is -inf"),
    ],
)
@pytest.mark.parametrize("ask", ["decide", "score", "bulk"])
def test_an_event_that_json_cannot_hold_is_named_by_its_place_and_not_sent(
    event: dict[str, object], what: str, ask: str
) -> None:
    events = [{"text": "fine"}, event]

    async def ask_awaiting() -> None:
        http = httpx.AsyncClient(base_url="http://mews", transport=Noting())
        async with AsyncClient("", "key", http=http) as client:
            if ask == "bulk":
                [answer async for answer in client.bulk("content", streamed(events))]
            await getattr(client, ask)("content", events)

    http = httpx.Client(base_url="http://mews", transport=Noting())
    with Client("", "key", http=http) as client, pytest.raises(ValueError, match=what) as blocking:
        list(getattr(client, ask)("content", events))
    with pytest.raises(ValueError, match=what) as awaiting:
        asyncio.run(ask_awaiting())

    assert "secret" not in f"{blocking.value} {awaiting.value}"


def test_a_client_closes_its_connections_without_a_with_block_too() -> None:
    http, async_http = httpx.Client(), httpx.AsyncClient()

    Client("", "key", http=http).close()
    asyncio.run(AsyncClient("", "key", http=async_http).aclose())

    assert http.is_closed
    assert async_http.is_closed


def test_bulk_answers_every_line_of_a_long_stream_in_order_and_names_the_wrong_one(
    team: Team, first: Bundle, key: str
) -> None:
    async def events() -> AsyncIterator[dict[str, object]]:
        for number in range(NUM_BULK):
            yield {"text": BENIGN, "event_id": f"e{number}"} if number != 7 else {"txt": "no event"}

    async def ask(url: str) -> list[Answer | LineError]:
        async with AsyncClient(url, key) as client:
            return [answer async for answer in client.bulk("content", events())]

    with served(team.home) as server:
        answers = asyncio.run(ask(server.url))

    assert len(answers) == NUM_BULK
    assert isinstance(answers[7], LineError)
    assert answers[7].line == 8
    assert [a.event_id for a in answers if isinstance(a, Answer)] == [f"e{n}" for n in range(NUM_BULK) if n != 7]


def test_a_bulk_stream_follows_the_releases_and_ends_where_none_is_approved(
    team: Team, first: Bundle, policy: Bundle, runs: dict[str, Path], key: str
) -> None:
    second = team.seal(runs["content"], note="second")
    team.sign(second)
    seen: list[str] = []

    async def serves(http: httpx.AsyncClient, release: str | None) -> None:
        async with asyncio.timeout(30):
            while [one["release"] for one in (await http.get("/v1/releases")).json()["detectors"]] != [release]:
                await asyncio.sleep(0.1)

    async def events(http: httpx.AsyncClient) -> AsyncIterator[dict[str, object]]:
        yield {"text": BENIGN}
        team.deploy(second, policy)
        await serves(http, second.digest)
        yield {"text": BENIGN}
        team.revoke(second)
        team.revoke(first)
        await serves(http, None)
        yield {"text": BENIGN}

    async def ask(url: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        async with AsyncClient(url, key) as client, httpx.AsyncClient(base_url=url, headers=headers) as http:
            async for answer in client.bulk("content", events(http)):
                assert isinstance(answer, Answer)
                seen.append(answer.release)

    with served(team.home) as server, pytest.raises(StreamEnded, match="not_served") as ended:
        asyncio.run(ask(server.url))

    assert ended.value.line == 3
    assert seen == [first.digest, second.digest]
