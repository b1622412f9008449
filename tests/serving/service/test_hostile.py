import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serving.bundle import Bundle
from tests.serving.service.conftest import Team
from tests.serving.service.hostile import MARK, Hostile, corpus
from tests.serving.service.served import Served, served
from tests.serving.service.test_service import BENIGN, SPAM

PAUSE_S, PATIENCE_S = 0.01, 5.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


@pytest.fixture
def server(team: Team, first: Bundle, key: str, log: Path) -> Iterator[Served]:
    with served(team.home, log=log) as running:
        yield running


async def send(port: int, hostile: Hostile) -> int:
    """The status of the answer; 0 where the connection was closed or nothing came, as to half a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in hostile.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(PAUSE_S)
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except (ConnectionError, TimeoutError):
        return 0
    finally:
        writer.transport.abort()


def test_three_hundred_hostile_inputs_break_nothing_and_leave_no_text_in_the_log(
    server: Served, key: str, log: Path
) -> None:
    inputs = corpus(key)
    before_mb = psutil.Process(server.pid).children()[0].memory_info().rss / 1e6

    async def attack() -> dict[str, int]:
        turn = asyncio.Semaphore(16)

        async def one(hostile: Hostile) -> int:
            async with turn:
                return await send(server.port, hostile)

        statuses = await asyncio.gather(*map(one, inputs))
        return {hostile.name: status for hostile, status in zip(inputs, statuses, strict=True)}

    statuses = asyncio.run(attack())

    worker = psutil.Process(server.pid).children()[0]
    after = httpx.post(
        f"{server.url}/v1/decisions",
        json={"detector": "content", "event": {"text": SPAM}},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert len(inputs) >= 300
    assert {name: status for name, status in statuses.items() if status >= 500} == {}
    assert Counter(statuses.values())[0] < len(inputs) / 2  # half requests, and what is closed while still sending
    assert after.json()["decisions"][0]["action"] == "block"
    assert worker.memory_info().rss / 1e6 - before_mb < 300
    written = log.read_text(errors="replace")
    assert MARK not in written
    assert "Traceback" not in written


@pytest.mark.parametrize("path", ["/v1/decisions", "/admin/login", "/docs"])
def test_slow_bodies_do_not_keep_others_waiting(server: Served, key: str, path: str) -> None:
    async def dribble() -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        request = f"{head}content-type: application/json\r\ncontent-length: 500\r\n\r\n".encode()
        writers = [(await asyncio.open_connection("127.0.0.1", server.port))[1] for _ in range(400)]
        for writer in writers:
            writer.write(request)
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(
            base_url=server.url, headers={"authorization": f"Bearer {key}"}, timeout=60
        ) as caller:
            answer = await caller.post("/v1/decisions", json={"detector": "content", "event": {"text": BENIGN}})
        for writer in writers:
            writer.transport.abort()
        assert answer.status_code == 200

    asyncio.run(dribble())


def test_what_is_under_way_is_finished_when_the_service_is_told_to_end(
    team: Team, first: Bundle, key: str, log: Path
) -> None:
    asked = {"detector": "content", "events": [{"text": SPAM * 30}] * 60}

    async def ask_and_end() -> list[httpx.Response]:
        with served(team.home, log=log) as server:
            async with httpx.AsyncClient(
                base_url=server.url, headers={"authorization": f"Bearer {key}"}, timeout=60
            ) as c:
                asking = [asyncio.create_task(c.post("/v1/decisions", json=asked)) for _ in range(4)]
                await asyncio.sleep(0.5)
                os.kill(server.pid, signal.SIGTERM)
                return await asyncio.gather(*asking)

    answers = asyncio.run(ask_and_end())

    assert [answer.status_code for answer in answers] == [200] * 4


def test_the_openapi_document_is_kept_by_every_answer(server: Served, key: str, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        f"--header=Authorization: Bearer {key}",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=10",
        "--seed=6",
        "--workers=1",
        "--request-timeout=20",
    ]

    hooks = {"SCHEMATHESIS_HOOKS": "tests.serving.service.schemathesis_hooks", "PYTHONPATH": str(Path.cwd())}
    environment = {**os.environ, **hooks}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)

    assert done.returncode == 0, done.stdout[-6000:]
