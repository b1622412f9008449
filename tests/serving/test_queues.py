import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.live import LONG, Assessment, Event, Glanced
from serving.queues import Assessed, Call, Queues, Scorers, assessing
from serving.record import Features

CALL = Call("1", "test")
SURE, UNSURE, LONG_TEXT = {"text": "sure"}, {"text": "unsure"}, {"text": "x" * (LONG + 1)}


class Live:
    """A cascade whose whole network reads no long text before it is `told` to."""

    inputs: Sequence[str] = ()
    encodes_all = False

    def __init__(self) -> None:
        self.told, self.settled_in = threading.Event(), list[str]()

    def glance(self, events: Sequence[Event]) -> list[Glanced]:
        return [Glanced(assessment(0.1), row=None if event == SURE else event) for event in events]

    def settle(self, glanced: Sequence[Glanced]) -> list[Assessment]:
        self.settled_in.append(threading.current_thread().name)
        if any(self.is_long(one.row or {}) for one in glanced):
            assert self.told.wait(60)
        return [assessment(0.9) for _ in glanced]

    def is_long(self, event: Event) -> bool:
        return len(event["text"]) > LONG


def assessment(score: float) -> Assessment:
    return Assessment(1, Features(), {"spam": score})


@pytest.fixture
def scorers() -> Iterator[Scorers]:
    executors = [ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("first", "whole", "long", "encoding")]
    yield Scorers(*executors)
    for executor in executors:
        executor.shutdown()


def scores(assessed: Sequence[Assessment]) -> list[float]:
    return [one.scores["spam"] for one in assessed if one.scores]


def test_who_ends_early_and_who_is_short_wait_for_no_long_text(scorers: Scorers) -> None:
    live = Live()
    assess = assessing(live, scorers)  # type: ignore[arg-type]

    async def ask() -> tuple[list[float], list[float], list[float]]:
        long = asyncio.create_task(assess([LONG_TEXT], CALL))
        while not live.settled_in:
            await asyncio.sleep(0.001)
        early, short = await assess([SURE], CALL), await assess([UNSURE], CALL)
        assert not long.done()
        live.told.set()
        return scores(early), scores(short), scores(await long)

    found = asyncio.run(ask())

    assert found == ([0.1], [0.9], [0.9])
    assert live.settled_in == ["long_0", "whole_0"]


def test_answers_keep_the_order_of_the_events_whoever_gave_them(scorers: Scorers) -> None:
    live = Live()
    live.told.set()
    assess = assessing(live, scorers)  # type: ignore[arg-type]
    events = [SURE, UNSURE, LONG_TEXT, SURE, UNSURE]

    found = asyncio.run(assess(events, CALL))

    assert scores(found) == [0.1, 0.9, 0.9, 0.1, 0.9]


def test_requests_that_waited_together_are_concluded_together_each_with_its_own(scorers: Scorers) -> None:
    live, batches = Live(), list[int]()
    live.told.set()

    def conclude(assessed: list[Assessed]) -> list[tuple[str, list[float]]]:
        batches.append(len(assessed))
        return [(one.asked.call.request_id, scores(one.assessments)) for one in assessed]

    queues = Queues(live, scorers, conclude)  # type: ignore[arg-type]

    async def ask() -> list[tuple[str, list[float]]]:
        requests = ((str(at), [UNSURE, SURE] if at % 4 == 0 else [SURE]) for at in range(32))
        return await asyncio.gather(*(queues(events, Call(name, "test")) for name, events in requests))

    found = asyncio.run(ask())

    assert found == [(str(at), [0.9, 0.1] if at % 4 == 0 else [0.1]) for at in range(32)]
    assert sum(batches) == 32
    assert len(batches) <= 4  # one that is scored as it is, one of the whole network, and what began before all came
