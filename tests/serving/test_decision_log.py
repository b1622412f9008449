import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from serving.decision_log import DecisionLog, read_segment
from serving.segments import sealed_segments, whole

WRITER = """
import asyncio, sys
from pathlib import Path
from serving.decision_log import DecisionLog

async def main():
    log = DecisionLog(Path(sys.argv[1]))
    for number in range(100_000):
        await log.append([b'{"number":%d}' % number])
        print(number, flush=True)

asyncio.run(main())
"""


def records(folder: Path) -> list[bytes]:
    return [record for path in sealed_segments(folder) for record in read_segment(path)]


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    log, many = DecisionLog(tmp_path), [b'{"number":%d}' % number for number in range(50)]

    async def append() -> None:
        await asyncio.gather(*(log.append([record]) for record in many))

    asyncio.run(append())
    log.close()

    assert records(tmp_path) == many


def test_a_client_that_leaves_takes_no_neighbour_along(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)

    async def append() -> list[object]:
        first, *others = [asyncio.create_task(log.append([b'{"number":%d}' % number])) for number in range(3)]
        await asyncio.sleep(0)  # all of them wait for one batch
        first.cancel()
        return await asyncio.gather(first, *others, return_exceptions=True)

    left, *others = asyncio.run(append())
    log.close()

    assert isinstance(left, asyncio.CancelledError)
    assert others == [None, None]
    assert records(tmp_path) == [b'{"number":%d}' % number for number in range(3)]


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(200)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()

    DecisionLog(tmp_path).close()

    kept = records(tmp_path)
    assert kept[: len(acknowledged)] == [b'{"number":%d}' % number for number in acknowledged]
    assert len(kept) == len(set(kept))


def test_the_zeros_ahead_are_no_records_and_do_not_stay(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    asyncio.run(log.append([b'{"number":1}']))

    [begun] = tmp_path.glob("*.open")
    reserved, found = begun.stat().st_size, list(read_segment(begun))
    log.close()
    [sealed] = sealed_segments(tmp_path)

    assert reserved >= 1 << 20
    assert found == [b'{"number":1}']
    assert sealed.stat().st_size < 100
    assert whole(sealed) == [b'{"number":1}']


class Counting(DecisionLog):
    """Notes how many records went to disk together."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.groups: list[int] = []

    def _write(self, records: list[bytes]) -> None:
        self.groups.append(len(records))
        super()._write(records)


def test_many_requests_that_come_apart_share_few_syncs(tmp_path: Path) -> None:
    log = Counting(tmp_path)

    async def request(number: int, after_s: float) -> None:
        with log.coming():
            await asyncio.sleep(after_s)
        await log.append([b'{"number":%d}' % number])

    async def many() -> None:
        await asyncio.gather(*(request(number, number * 1e-4) for number in range(32)))

    asyncio.run(many())
    num_groups = len(log.groups)
    asyncio.run(request(32, 0.0))
    log.close()

    assert num_groups <= 8
    assert log.groups[num_groups:] == [1]
    assert sorted(records(tmp_path)) == sorted(b'{"number":%d}' % number for number in range(33))


def test_a_request_that_never_comes_is_waited_for_only_a_moment(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)

    async def beside_others() -> float:
        begun = asyncio.get_running_loop().time()
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(log.coming())
            await asyncio.wait_for(log.append([b'{"number":1}']), timeout=10)
        return asyncio.get_running_loop().time() - begun

    waited_s = asyncio.run(beside_others())
    log.close()

    assert waited_s >= 0.002
    assert records(tmp_path) == [b'{"number":1}']
