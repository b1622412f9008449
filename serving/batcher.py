"""Joins what arrives while the scorer is busy into one batch; an idle scorer starts at once, without a timer."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Overloaded(Exception):
    """More is waiting than will be answered in time."""


class MicroBatcher(Generic[Item, Result]):
    """Calls `work(items)`, which answers one result per item in order, with what queued while the last call ran.

    From `bypass_from` items on, a request is a batch already and goes to the executor by itself, since a queue would
    only add a hop. A failing call fails every request in it: check items before they are queued.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result]],
        executor: Executor,
        *,
        max_batch: int = 64,
        max_waiting: int = 4096,
        bypass_from: int = 16,
    ) -> None:
        self._work, self._executor = work, executor
        self._max_batch, self._max_waiting, self._bypass_from = max_batch, max_waiting, bypass_from
        self._waiting: deque[tuple[list[Item], asyncio.Future[Sequence[Result]]]] = deque()
        self._num_waiting = 0
        self._is_busy = False

    async def __call__(self, asked: Sequence[Item]) -> Sequence[Result]:
        """The results of these items; raises Overloaded when too much is waiting."""
        items = list(asked)
        if self._num_waiting + len(items) > self._max_waiting:
            raise Overloaded(f"{self._num_waiting} events are waiting; the limit is {self._max_waiting}")
        loop = asyncio.get_running_loop()
        if len(items) >= self._bypass_from:
            return await self._alone(items, loop)
        future: asyncio.Future[Sequence[Result]] = loop.create_future()
        self._waiting.append((items, future))
        self._num_waiting += len(items)
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._start, loop)  # lets the rest of this loop tick join
        return await future

    async def _alone(self, items: list[Item], loop: asyncio.AbstractEventLoop) -> Sequence[Result]:
        self._num_waiting += len(items)
        try:
            return await loop.run_in_executor(self._executor, self._work, items)
        finally:
            self._num_waiting -= len(items)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._take()
        if not batch:
            self._is_busy = False
            return
        flat = [item for items, _ in batch for item in items]
        job = loop.run_in_executor(self._executor, self._work, flat)
        job.add_done_callback(lambda done: self._finish(loop, batch, done=done))

    def _take(self) -> list[tuple[list[Item], asyncio.Future[Sequence[Result]]]]:
        batch: list[tuple[list[Item], asyncio.Future[Sequence[Result]]]] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0][0]) <= self._max_batch):
            items, future = self._waiting.popleft()
            self._num_waiting -= len(items)
            if not future.done():  # done = its client went away
                batch.append((items, future))
                size += len(items)
        return batch

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[list[Item], asyncio.Future[Sequence[Result]]]],
        *,
        done: asyncio.Future[Sequence[Result]],
    ) -> None:
        error, first = done.exception(), 0
        for items, future in batch:
            if not future.done():
                if error:
                    future.set_exception(error)
                else:
                    future.set_result(done.result()[first : first + len(items)])
            first += len(items)
        self._start(loop)  # drain, or fall idle
