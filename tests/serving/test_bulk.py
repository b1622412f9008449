import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.batcher import Overloaded
from serving.bulk import Unread
from serving.decision_log import LogFull
from serving.guard import ClientGone, Refusal
from serving.lines import MAX_LINE, MOST_LINES
from tests.serving.bulk_exchange import Deciding, Exchange, event


async def collect(unread: Unread) -> bytes:
    return b"".join([chunk async for chunk in unread.chunks()])


def test_answers_are_taken_while_more_are_written_and_none_is_lost(tmp_path: Path) -> None:
    async def exchange() -> bytes:
        with Unread(tmp_path) as unread:
            taking = asyncio.create_task(collect(unread))
            for number in range(500):
                unread.write(b"%d\n" % number * 50)
                if number % 7 == 0:
                    await asyncio.sleep(0)
            unread.end()
            return await taking

    assert asyncio.run(exchange()) == b"".join(b"%d\n" % number * 50 for number in range(500))


def test_what_nobody_takes_waits_in_a_file_that_ends_with_the_exchange(tmp_path: Path) -> None:
    async def exchange() -> None:
        with Unread(tmp_path) as unread:
            unread.write(b"x" * (4 << 20))

    asyncio.run(exchange())

    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_reaches_whoever_takes(tmp_path: Path) -> None:
    async def exchange() -> None:
        with Unread(tmp_path) as unread:
            unread.end(OSError("no room"))
            await collect(unread)

    with pytest.raises(OSError, match="no room"):
        asyncio.run(exchange())


def test_a_client_that_reads_nothing_until_all_is_sent_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.bulk.IDLE_S", 0.3)

    async def exchange() -> list[dict[str, Any]]:
        is_all_sent = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"".join(event(number) for number in range(MOST_LINES))
            for number in range(MOST_LINES, MOST_LINES + 8):
                await asyncio.sleep(0.1)
                yield event(number)
            is_all_sent.set()

        return await Exchange(tmp_path, taken=is_all_sent.wait).run(slowly())

    answers = asyncio.run(exchange())

    assert [answer["event_id"] for answer in answers] == [f"e{number}" for number in range(MOST_LINES + 8)]


def test_a_client_that_takes_nothing_after_its_last_event_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.bulk.IDLE_S", 0.1)

    async def one() -> AsyncIterator[bytes]:
        yield event(0)

    async def exchange() -> None:
        await Exchange(tmp_path, taken=asyncio.Event().wait).run(one())

    with pytest.raises(ClientGone):
        asyncio.run(exchange())


@pytest.mark.parametrize("size", [1 << 16, 3 << 20])
def test_a_line_over_the_limit_is_named_and_the_lines_behind_it_are_answered(tmp_path: Path, size: int) -> None:
    body = event(0) + event(1, "x" * MAX_LINE) + b"".join(event(number) for number in range(2, 200))

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    answers = asyncio.run(Exchange(tmp_path).run(chunks()))

    error = {"message": f"the line is longer than {MAX_LINE} bytes", "type": "invalid_event"}
    assert answers[1] == {"line": 2, "error": error}
    assert [a["event_id"] for a in answers if "event_id" in a] == [f"e{n}" for n in range(200) if n != 1]


def test_what_has_arrived_is_answered_before_its_client_sends_more(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path)

    async def in_turns() -> AsyncIterator[bytes]:
        for number in range(3):
            half, other_half = event(number + 10)[:9], event(number + 10)[9:]
            yield event(number) + half
            async with asyncio.timeout(10):
                while len(exchange.answered()) <= 2 * number:
                    await asyncio.sleep(0.01)
            yield other_half

    answers = asyncio.run(exchange.run(in_turns()))

    assert [answer["event_id"] for answer in answers] == ["e0", "e10", "e1", "e11", "e2", "e12"]


async def four_batches() -> AsyncIterator[bytes]:
    for first in range(0, 4 * MOST_LINES, MOST_LINES):
        yield b"".join(event(number) for number in range(first, first + MOST_LINES))


def test_a_batch_that_is_refused_because_too_much_is_waiting_is_decided_later(tmp_path: Path) -> None:
    deciding = Deciding(fails_at={call: Overloaded("4096 events are waiting") for call in (1, 2, 4)})

    answers = asyncio.run(Exchange(tmp_path, deciding).run(four_batches()))

    assert [answer["event_id"] for answer in answers] == [f"e{number}" for number in range(4 * MOST_LINES)]
    assert [len(asked) for asked in deciding.asked] == [MOST_LINES] * 4


@pytest.mark.parametrize(
    ("error", "raised", "message", "kind"),
    [
        (LogFull("no room"), Refusal, "no room", "log_full"),
        (KeyError("what a person wrote"), KeyError, "the service failed; name the request id", "internal_error"),
    ],
)
def test_a_failure_behind_the_first_answer_is_its_last_line_also_for_a_client_that_sends_everything_first(
    tmp_path: Path, error: Exception, raised: type[Exception], message: str, kind: str
) -> None:
    async def exchange() -> Exchange:
        is_all_sent = asyncio.Event()

        async def everything() -> AsyncIterator[bytes]:
            async for chunk in four_batches():
                yield chunk
            is_all_sent.set()

        made = Exchange(tmp_path, Deciding(fails_at={2: error}), taken=is_all_sent.wait)
        with pytest.raises(raised):
            await made.run(everything())
        return made

    made = asyncio.run(exchange())

    assert len(made.answered()) == 2 * MOST_LINES + 1
    assert made.answered()[-1] == {"ended_at_line": 2 * MOST_LINES + 1, "error": {"message": message, "type": kind}}
    assert made.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_answers_end_where_no_release_is_served_any_more(tmp_path: Path) -> None:
    made = Exchange(tmp_path, Deciding(served_for=3))

    with pytest.raises(Refusal, match="nothing is served for content"):
        asyncio.run(made.run(four_batches()))

    assert len(made.answered()) == 3 * MOST_LINES + 1
    assert made.answered()[-1]["ended_at_line"] == 3 * MOST_LINES + 1
    assert made.answered()[-1]["error"]["type"] == "not_served"


def test_a_failure_before_the_first_answer_is_left_to_the_guard(tmp_path: Path) -> None:
    made = Exchange(tmp_path, Deciding(fails_at={0: LogFull("no room")}))

    with pytest.raises(Refusal) as refusal:
        asyncio.run(made.run(four_batches()))

    assert (refusal.value.status, refusal.value.headers) == (503, ((b"retry-after", b"1"),))
    assert made.messages == []
