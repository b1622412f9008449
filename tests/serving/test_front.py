import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.front import Door, Front, is_whole
from serving.guard import ENTERED
from serving.room import Room

BODY = b'{"detector": "content"}'
HEAD = b"POST /v1/decisions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n" % len(BODY)
WHOLE = HEAD + b"\r\n" + BODY


@pytest.mark.parametrize(
    "data",
    [
        WHOLE.replace(b"decisions", b"bulk"),
        WHOLE.replace(b"POST", b"GET"),
        WHOLE.replace(b"1.1", b"1.0"),
        WHOLE[:-1],
        WHOLE + WHOLE,
        HEAD,
        HEAD + b"connection: close\r\n\r\n" + BODY,
        HEAD + b"expect: 100-continue\r\n\r\n" + BODY,
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 0\r\n\r\n" + BODY,
        HEAD + b"x: y\nContent-Length: 0\r\n\r\n" + BODY,
        HEAD.replace(b"content-length: ", b"content-length: +") + b"\r\n" + BODY,
    ],
)
def test_only_one_plain_request_with_its_whole_body_is_taken_for_one(data: bytes) -> None:
    assert is_whole(WHOLE)
    assert is_whole(HEAD + b"Connection: keep-alive\r\n\r\n" + BODY)
    assert not is_whole(data)


@asynccontextmanager
async def served(room: Room) -> AsyncIterator[int]:
    """A server whose app answers whether the request came with a place, and the port of the server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        body = b"with a place" if ENTERED in scope else b"without a place"
        if ENTERED in scope:
            room.leave(scope[ENTERED])
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    door = Door()
    door.open(app, room=room)
    Front.door = door
    server = uvicorn.Server(uvicorn.Config(door, port=0, http=Front, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def ask(port: int, *pieces: bytes, num_answers: int = 1) -> list[tuple[int, bytes]]:
    """What comes back on one connection for bytes that are sent in these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.05)
    answers = []
    for _ in range(num_answers):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answers.append((int(head[9:12]), await reader.readexactly(length)))
    writer.close()
    return answers


def test_a_request_gets_a_place_and_is_refused_when_there_is_none() -> None:
    async def asked() -> None:
        room = Room()
        async with served(room) as port:
            [let_in] = await ask(port, WHOLE)
            room.limit = 0.0
            refused = await ask(port, WHOLE, WHOLE, num_answers=2)

            errors = [json.loads(body)["error"] for _, body in refused]
            assert let_in == (200, b"with a place")
            assert [status for status, _ in refused] == [429, 429]
            assert [error["code"] for error in errors] == ["overloaded", "overloaded"]
            assert errors[0]["request_id"] != errors[1]["request_id"]
            assert room.num_turned_away == 2

    asyncio.run(asked())


def test_what_is_not_certainly_one_request_goes_to_the_parser_also_under_overload() -> None:
    as_body = HEAD.replace(b"%d" % len(BODY), b"%d" % len(WHOLE)) + b"\r\n"

    async def asked() -> list[tuple[int, bytes]]:
        async with served(Room(limit=0.0)) as port:
            apart = await ask(port, HEAD, b"\r\n" + BODY)
            a_body_like_a_request = await ask(port, as_body, WHOLE)
            pipelined = await ask(port, WHOLE + WHOLE, num_answers=2)
            return [*apart, *a_body_like_a_request, *pipelined]

    assert asyncio.run(asked()) == [(200, b"without a place")] * 4


def test_what_only_looks_like_a_request_gives_its_place_back() -> None:
    async def asked() -> bytes:
        async with served(room) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(WHOLE.replace(b"host: a", b"ho st: a"))
            answer = await reader.read()
            writer.close()
            return answer

    room = Room()

    assert asyncio.run(asked()).startswith(b"HTTP/1.1 400")
    assert room.num_inside == 0
