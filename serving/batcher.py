"""Joins what arrives while the scorer is busy into one batch; an idle scorer starts at once, without a timer."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
INLINE_S = 0.003
BATCH_S = 0.05
BYPASS_FROM = 16
_AHEAD = 1  # full batch more than there are threads, which begin it without waiting for the event loop


class Overloaded(Exception):
    """More is waiting than will be answered in time."""


class MicroBatcher(Generic[Item, Result]):
    """Calls `work(items)`, which answers one result per item in order, with what queued while the last call ran.

    A batch holds what takes about 50 ms, so that who came first is answered before the work on many is done.
    From 16 items on, a request is a batch already and goes by itself, since a queue would only add a hop.
    Work that never waits for anything (`is_pure`) and is expected to take under 3 ms runs on the event loop, which
    saves the CPU of handing it to a thread and back. What waited longer than `max_wait_s` is refused and not worked on:
    nobody would be helped by a late answer. A failing call fails every request in it: check items before they are
    queued. `num_threads` of the executor may be kept busy, each with a batch of its own.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result]],
        executor: Executor,
        *,
        is_pure: bool = False,
        num_threads: int = 1,
        max_batch: int = 64,
        max_waiting: int = 4096,
        max_wait_s: float = 1.0,
    ) -> None:
        self._work, self._executor, self._is_pure = work, executor, is_pure
        self._max_batch, self._max_waiting, self._max_wait_s = max_batch, max_waiting, max_wait_s
        self._num_threads = num_threads
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._num_waiting = 0
        self._num_given = 0  # batches that are worked on
        self._is_called = False  # whether the event loop is to start a batch
        self._item_s = float("inf")  # CPU that one item takes, as last seen

    async def __call__(self, asked: Sequence[Item]) -> Sequence[Result]:
        """The results of these items; raises Overloaded when too much is waiting."""
        items = list(asked)
        if self._num_waiting + len(items) > self._max_waiting:
            raise Overloaded(f"{self._num_waiting} events are waiting; the limit is {self._max_waiting}")
        loop = asyncio.get_running_loop()
        if len(items) >= BYPASS_FROM:
            return await self._alone(items, loop)
        waiting: _Waiting[Item, Result] = _Waiting(items, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._num_waiting += len(items)
        self._call(loop)
        return await waiting.future

    async def _alone(self, items: list[Item], loop: asyncio.AbstractEventLoop) -> Sequence[Result]:
        if self._is_quick(len(items)):
            return self._timed(items)
        self._num_waiting += len(items)
        try:
            return await loop.run_in_executor(self._executor, self._timed, items)
        finally:
            self._num_waiting -= len(items)

    def _is_quick(self, num_items: int) -> bool:
        return self._is_pure and self._item_s * num_items < INLINE_S

    def _timed(self, items: list[Item]) -> Sequence[Result]:
        begun = time.thread_time()
        results = self._work(items)
        item_s = (time.thread_time() - begun) / len(items)
        self._item_s = item_s if self._item_s == float("inf") else 0.9 * self._item_s + 0.1 * item_s
        return results

    def _most(self) -> int:
        """How many items a batch holds."""
        return max(1, min(self._max_batch, int(BATCH_S / self._item_s)))

    def _has_room(self) -> bool:
        """Whether a batch may be started: where no thread is free, only a full one, which would not grow by waiting."""
        num_free = self._num_threads - self._num_given
        return num_free > 0 or (num_free + _AHEAD > 0 and self._num_waiting >= self._most())

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the event loop start a batch."""
        if self._is_called or not self._waiting or not self._has_room():
            return
        self._is_called = True
        loop.call_soon(self._start, loop)  # lets the rest of this loop tick join

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_called = False
        while self._has_room() and (batch := self._take(loop.time())):
            self._give(batch, loop)

    def _give(self, batch: "list[_Waiting[Item, Result]]", loop: asyncio.AbstractEventLoop) -> None:
        self._num_given += 1
        flat = [item for waiting in batch for item in waiting.items]
        if self._is_quick(len(flat)):
            done: asyncio.Future[Sequence[Result]] = loop.create_future()
            try:
                done.set_result(self._timed(flat))
            except Exception as error:  # noqa: BLE001  # carried to whoever asked
                done.set_exception(error)
        else:
            done = loop.run_in_executor(self._executor, self._timed, flat)
        done.add_done_callback(lambda done: self._finish(loop, batch, done=done))

    def _take(self, now: float) -> "list[_Waiting[Item, Result]]":
        batch: list[_Waiting[Item, Result]] = []
        size, most = 0, self._most()
        while self._waiting and (not batch or size + len(self._waiting[0].items) <= most):
            waiting = self._waiting.popleft()
            self._num_waiting -= len(waiting.items)
            if waiting.future.done():  # its client went away
                continue
            if now - waiting.since > self._max_wait_s:
                waiting.future.set_exception(Overloaded(f"it waited longer than {self._max_wait_s:g} s"))
                continue
            batch.append(waiting)
            size += len(waiting.items)
        return batch

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: "list[_Waiting[Item, Result]]",
        *,
        done: asyncio.Future[Sequence[Result]],
    ) -> None:
        self._num_given -= 1
        error, first = done.exception(), 0
        for waiting in batch:
            if not waiting.future.done():
                if error:
                    waiting.future.set_exception(error)
                else:
                    waiting.future.set_result(done.result()[first : first + len(waiting.items)])
            first += len(waiting.items)
        self._call(loop)  # drain, or fall idle


class _Waiting(Generic[Item, Result]):
    """The items of one request and where their results go."""

    __slots__ = ("future", "items", "since")

    def __init__(self, items: list[Item], future: asyncio.Future[Sequence[Result]], since: float) -> None:
        self.items, self.future, self.since = items, future, since
