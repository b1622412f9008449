"""Work that may be late or lost, but never in the way: a bounded queue with a thread of its own."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
_log = logging.getLogger(__name__)


class Backlog(Generic[Item]):
    """Hands items in batches to `work` in the background; what does not fit is dropped and counted.

    From its first item on, a batch gathers for `gather_s`: many items in one call take less of the CPU that requests
    wait for.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Item]], None],
        *,
        max_waiting: int = 2_000,
        max_batch: int = 256,
        gather_s: float = 0.01,
    ) -> None:
        self.name, self.num_dropped, self.num_failed = name, 0, 0
        self._work, self._max_batch, self._gather_s = work, max_batch, gather_s
        self._queue: queue.Queue[Item | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name=f"backlog-{name}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Leave one item; never waits."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.num_dropped += 1

    def close(self, timeout_s: float = 5.0) -> bool:
        """Let what waits be done, for at most `timeout_s`; whether all of it was."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            time.sleep(self._gather_s)
            batch, is_last = [first], False
            while len(batch) < self._max_batch and not self._queue.empty():
                item = self._queue.get_nowait()
                if item is None:
                    is_last = True
                    break
                batch.append(item)
            self._do(batch)
            if is_last:
                return

    def _do(self, batch: list[Item]) -> None:
        try:
            self._work(batch)
        except Exception as error:  # noqa: BLE001  # an edge: whatever fails here must not end the thread
            self.num_failed += len(batch)
            _log.warning("backlog %s lost %d items: %s", self.name, len(batch), type(error).__name__)
