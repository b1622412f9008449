"""Joins what arrives while the scorer is busy into one batch; an idle scorer starts at once, without a timer."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")
INLINE_S = sys.getswitchinterval()  # a thread that computes would keep the interpreter from the event loop as long
BATCH_S = 0.05
BYPASS_FROM = 16
_AHEAD = 1  # full batch more than there are threads, which begin it without waiting for the event loop


class Overloaded(Exception):
    """More is waiting than will be answered in time."""


class MicroBatcher(Generic[Request, Result]):
    """Calls `work(requests)`, which answers one result per request in order, with what queued while the last call ran.

    A request has a size, such as its number of events. A batch holds what takes about 50 ms, so that who came first is
    answered before the work on many is done. From a size of 16 on, a request is a batch already and goes by itself,
    since a queue would only add a hop. Work that never waits for anything (`is_pure`) and is expected to take under 5
    ms runs on the event loop, which saves the CPU of handing it to a thread and back. What waited longer than
    `max_wait_s` is refused and not worked on: nobody would be helped by a late answer. A failing call fails every
    request in it: check them before they are queued. `num_threads` of the executor may be kept busy, each with a batch
    of its own.
    """

    def __init__(
        self,
        work: Callable[[list[Request]], Sequence[Result]],
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
        self._waiting: deque[_Waiting[Request, Result]] = deque()
        self._size = 0  # of all that waits
        self._num_given = 0  # batches that are worked on
        self._is_called = False  # whether the event loop is to start a batch
        self._unit_s = float("inf")  # CPU that a request of size 1 takes, as last seen

    async def __call__(self, request: Request, size: int) -> Result:
        """The result of this request; raises Overloaded when too much is waiting."""
        if self._size + size > self._max_waiting:
            raise Overloaded(f"{self._size} events are waiting; the limit is {self._max_waiting}")
        loop = asyncio.get_running_loop()
        if size >= BYPASS_FROM:
            return await self._alone(request, size, loop)
        waiting: _Waiting[Request, Result] = _Waiting(request, size, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._size += size
        self._call(loop)
        return await waiting.future

    async def _alone(self, request: Request, size: int, loop: asyncio.AbstractEventLoop) -> Result:
        if self._is_quick(size):
            return self._timed([request], size)[0]
        self._size += size
        try:
            return (await loop.run_in_executor(self._executor, self._timed, [request], size))[0]
        finally:
            self._size -= size

    def _is_quick(self, size: int) -> bool:
        return self._is_pure and self._unit_s * size < INLINE_S

    def _timed(self, requests: list[Request], size: int) -> Sequence[Result]:
        begun = time.thread_time()
        results = self._work(requests)
        unit_s = (time.thread_time() - begun) / size
        self._unit_s = unit_s if self._unit_s == float("inf") else 0.9 * self._unit_s + 0.1 * unit_s
        return results

    def _most(self) -> int:
        """How much a batch holds."""
        return max(1, min(self._max_batch, int(BATCH_S / self._unit_s)))

    def _has_room(self) -> bool:
        """Whether a batch may be started: where no thread is free, only a full one, which would not grow by waiting."""
        num_free = self._num_threads - self._num_given
        return num_free > 0 or (num_free + _AHEAD > 0 and self._size >= self._most())

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

    def _give(self, batch: "list[_Waiting[Request, Result]]", loop: asyncio.AbstractEventLoop) -> None:
        self._num_given += 1
        requests, size = [waiting.request for waiting in batch], sum(waiting.size for waiting in batch)
        if self._is_quick(size):
            done: asyncio.Future[Sequence[Result]] = loop.create_future()
            try:
                done.set_result(self._timed(requests, size))
            except Exception as error:  # noqa: BLE001  # carried to whoever asked
                done.set_exception(error)
        else:
            done = loop.run_in_executor(self._executor, self._timed, requests, size)
        done.add_done_callback(lambda done: self._finish(loop, batch, done=done))

    def _take(self, now: float) -> "list[_Waiting[Request, Result]]":
        batch: list[_Waiting[Request, Result]] = []
        size, most = 0, self._most()
        while self._waiting and (not batch or size + self._waiting[0].size <= most):
            waiting = self._waiting.popleft()
            self._size -= waiting.size
            if waiting.future.done():  # its client went away
                continue
            if now - waiting.since > self._max_wait_s:
                waiting.future.set_exception(Overloaded(f"it waited longer than {self._max_wait_s:g} s"))
                continue
            batch.append(waiting)
            size += waiting.size
        return batch

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: "list[_Waiting[Request, Result]]",
        *,
        done: asyncio.Future[Sequence[Result]],
    ) -> None:
        self._num_given -= 1
        error = done.exception()
        for at, waiting in enumerate(batch):
            if waiting.future.done():
                continue
            if error:
                waiting.future.set_exception(error)
            else:
                waiting.future.set_result(done.result()[at])
        self._call(loop)  # drain, or fall idle


class _Waiting(Generic[Request, Result]):
    """One request and where its result goes."""

    __slots__ = ("future", "request", "since", "size")

    def __init__(self, request: Request, size: int, future: asyncio.Future[Result], since: float) -> None:
        self.request, self.size, self.future, self.since = request, size, future, since
