import asyncio
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.batcher import MicroBatcher, Overloaded

Items = list[int]


def run(batcher: MicroBatcher[Items, Items], *requests: Items) -> list[object]:
    async def ask() -> list[object]:
        return await asyncio.gather(*(batcher(items, len(items)) for items in requests), return_exceptions=True)

    return asyncio.run(ask())


def doubled(requests: list[Items]) -> list[Items]:
    return [[item * 2 for item in items] for items in requests]


def test_each_request_gets_its_own_results_in_order_whatever_was_joined() -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher = MicroBatcher[Items, Items](doubled, executor, is_pure=True)
        requests = [list(range(at, at + at % 5 + 1)) for at in range(200)]

        rounds = [run(batcher, *requests) for _ in range(3)]  # the first in the thread, the later on the loop

    assert rounds == [[[item * 2 for item in items] for items in requests]] * 3


def test_quick_work_that_never_waits_runs_on_the_loop_and_other_work_does_not() -> None:
    seen: list[str] = []

    def work(requests: list[Items]) -> list[Items]:
        seen.append(threading.current_thread().name)
        return requests

    with ThreadPoolExecutor(1, thread_name_prefix="scorer") as executor:
        for is_pure in (True, False):
            batcher = MicroBatcher[Items, Items](work, executor, is_pure=is_pure)
            for _ in range(3):
                run(batcher, [1])

    assert seen == ["scorer_0", "MainThread", "MainThread", "scorer_0", "scorer_0", "scorer_0"]


def test_as_many_batches_are_worked_on_at_once_as_there_are_threads() -> None:
    meeting = threading.Barrier(3)

    def work(requests: list[Items]) -> list[Items]:
        meeting.wait(30)  # none is done before all three are worked on
        return requests

    with ThreadPoolExecutor(3) as executor:
        batcher = MicroBatcher[Items, Items](work, executor, num_threads=3, max_batch=1)

        answers = run(batcher, *([at] for at in range(6)))

    assert answers == [[at] for at in range(6)]


def test_too_much_waiting_and_waiting_too_long_are_refused_and_cost_no_work() -> None:
    worked: list[int] = []

    def slow(requests: list[Items]) -> list[Items]:
        worked.extend(*requests)
        time.sleep(0.05)
        return requests

    with ThreadPoolExecutor(1) as executor:
        batcher = MicroBatcher[Items, Items](slow, executor, max_batch=1, max_waiting=3, max_wait_s=0.02)

        answers = run(batcher, [1], [2], [3], [4])

    kinds = [type(answer) for answer in answers]
    assert kinds[0] is list
    assert kinds[2:] == [Overloaded, Overloaded]  # the second was given to the thread while the first was worked on
    assert worked == [number for number, kind in enumerate(kinds, start=1) if kind is list]


def test_a_failing_call_fails_its_requests_and_the_next_one_works() -> None:
    def pick(requests: list[Items]) -> list[Items]:
        if [0] in requests:
            raise ZeroDivisionError
        return requests

    with ThreadPoolExecutor(1) as executor:
        batcher = MicroBatcher[Items, Items](pick, executor, is_pure=True)
        failed, worked = run(batcher, [0]), run(batcher, [1])

    with pytest.raises(ZeroDivisionError):
        raise failed[0]  # type: ignore[misc]
    assert worked == [[1]]


def test_who_came_first_is_answered_before_the_work_on_many_is_done() -> None:
    sizes: list[int] = []

    def slow(requests: list[Items]) -> list[Items]:
        sizes.append(len(requests))
        end = time.thread_time() + 0.0125 * len(requests)
        while time.thread_time() < end:
            pass
        return requests

    with ThreadPoolExecutor(1) as executor:
        batcher = MicroBatcher[Items, Items](slow, executor, max_wait_s=60)
        for _ in range(3):  # it learns what an item takes
            answers = run(batcher, *([at] for at in range(32)))

    assert answers == [[at] for at in range(32)]
    assert max(sizes[-8:]) <= 4
    assert statistics.mean(sizes[-8:]) >= 2
