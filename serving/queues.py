"""The queues before a live release: requests that wait for a thread go through it together, to the end."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from serving.batcher import MicroBatcher
from serving.live import Assessment, Event, Glanced, Live

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """Who asks, and under which id it is traced."""

    request_id: str
    caller: str


class Scorers(NamedTuple):
    """The threads that score: one, and two for what the first member of a cascade does not answer alone.

    A release that encodes every event has `num_encoding` threads to itself, each of which encodes on one core.
    """

    first: Executor
    whole: Executor
    long: Executor
    encoding: Executor
    num_encoding: int = 1

    @classmethod
    def of_cores(cls) -> "Scorers":
        """As many threads that encode as there are cores."""
        num_cores = os.cpu_count() or 1
        first, whole, long = (ThreadPoolExecutor(1, name) for name in ("scorer", "whole", "long"))
        return cls(first, whole, long, ThreadPoolExecutor(num_cores, "encoding"), num_cores)


class Asked(NamedTuple):
    """A request: its events, and who asks."""

    events: Sequence[Event]
    call: Call


class Assessed(NamedTuple):
    """A request with the assessment of each of its events."""

    asked: Asked
    assessments: list[Assessment]


class _Open(NamedTuple):
    """A request of which the first member of a cascade does not answer everything alone."""

    asked: Asked
    glanced: list[Glanced]

    @property
    def rows(self) -> list[Event]:
        return [one.row for one in self.glanced if one.row is not None]


class Queues(Generic[Result]):
    """Lets requests through a release and, in the same thread, to what `conclude` makes of those assessed together.

    A thread does all there is to do about a batch: each hop to another one would wait for the interpreter, and part
    what came together. Which request ends early in a cascade waits for none that does not, and no short text for a
    long one, which may take a hundred times as long.
    """

    def __init__(
        self,
        live: Live,
        scorers: Scorers,
        conclude: Callable[[list[Assessed]], Sequence[Result]],
        *,
        is_pure: bool = False,
    ) -> None:
        self._live, self._conclude = live, conclude
        self._first: MicroBatcher[Asked, Result | _Open]
        if live.encodes_all:
            self._first = MicroBatcher(self._glance, scorers.encoding, num_threads=scorers.num_encoding)
        else:
            self._first = MicroBatcher(self._glance, scorers.first, is_pure=is_pure)
        self._whole = MicroBatcher(self._settle, scorers.whole)
        self._long = MicroBatcher(self._settle, scorers.long)

    async def __call__(self, events: Sequence[Event], call: Call) -> Result:
        """What is concluded of a request; raises Overloaded when too much is waiting."""
        found = await self._first(Asked(events, call), len(events))
        if not isinstance(found, _Open):
            return found
        lane = self._long if any(self._live.is_long(row) for row in found.rows) else self._whole
        return await lane(found, len(found.rows))

    def _glance(self, requests: list[Asked]) -> list[Result | _Open]:
        glanced = iter(self._live.glance([event for asked in requests for event in asked.events]))
        seen = [_Open(asked, [next(glanced) for _ in asked.events]) for asked in requests]
        done = [Assessed(one.asked, [g.assessment for g in one.glanced]) for one in seen if not one.rows]
        concluded = iter(self._conclude(done) if done else [])
        return [one if one.rows else next(concluded) for one in seen]

    def _settle(self, requests: list[_Open]) -> Sequence[Result]:
        settled = iter(self._live.settle([g for one in requests for g in one.glanced if g.row is not None]))
        return self._conclude(
            [
                Assessed(one.asked, [g.assessment if g.row is None else next(settled) for g in one.glanced])
                for one in requests
            ]
        )


def assessing(live: Live, scorers: Scorers, *, may_run_inline: bool = True) -> Queues[list[Assessment]]:
    """Queues of requests of which only the assessments are wanted; what reads features waits for a store."""
    is_pure = may_run_inline and not live.inputs
    return Queues(live, scorers, lambda assessed: [one.assessments for one in assessed], is_pure=is_pure)
