import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.bulk import Unread, lines


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


def test_lines_are_whole_wherever_the_chunks_are_cut() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, 100, 7):
            yield (b"0123456789\n" * 10)[at : at + 7]

    async def split() -> list[bytes]:
        return [line async for line in lines(chunks())]

    assert asyncio.run(split())[:9] == [b"0123456789"] * 9
