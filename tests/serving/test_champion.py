import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.live import LONG, Assessment, Event, Glanced
from serving.moderator import Champion, Scorers
from serving.record import Features

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
    champion = Champion.of(live, scorers)  # type: ignore[arg-type]

    async def ask() -> tuple[list[float], list[float], list[float]]:
        long = asyncio.create_task(champion.assess([LONG_TEXT]))
        while not live.settled_in:
            await asyncio.sleep(0.001)
        early, short = await champion.assess([SURE]), await champion.assess([UNSURE])
        assert not long.done()
        live.told.set()
        return scores(early), scores(short), scores(await long)

    found = asyncio.run(ask())

    assert found == ([0.1], [0.9], [0.9])
    assert live.settled_in == ["long_0", "whole_0"]


def test_answers_keep_the_order_of_the_events_whoever_gave_them(scorers: Scorers) -> None:
    live = Live()
    live.told.set()
    champion = Champion.of(live, scorers)  # type: ignore[arg-type]
    events = [SURE, UNSURE, LONG_TEXT, SURE, UNSURE]

    found = asyncio.run(champion.assess(events))

    assert scores(found) == [0.1, 0.9, 0.9, 0.1, 0.9]
