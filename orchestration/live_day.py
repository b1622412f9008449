"""A day of the world as a client of the service lives it: every event asked about in order, and what was answered."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import httpx

from orchestration.detectors import Detector
from orchestration.world.world import LiveEvent, World

NUM_CONNECTIONS = 8
TIMEOUT_S = 10.0
TRICKLE_PER_SECOND, TRICKLE_LASTS_S = 5.0, 300.0


@dataclass(frozen=True)
class Answered:
    """What is true of an event, and what the service said about it."""

    detector: str
    truth: dict[str, int]
    labels: tuple[str, ...]
    release: str
    seconds: float


@dataclass
class LiveDay:
    """Sends events from a thread of its own, `per_second` of them; the last `num_held` only trickle until `release`."""

    url: str
    key: str
    events: Sequence[tuple[str, LiveEvent]]  # with the detector that each is for
    per_second: float
    num_held: int
    answers: list[Answered] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._play()), name="live-day", daemon=True)

    def start(self) -> None:
        """Begin the day."""
        self._thread.start()

    def release(self) -> None:
        """Let the rest of the day come as well."""
        self._released.set()

    def finish(self, timeout_s: float) -> None:
        """Wait until every event was asked about."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"{len(self.answers):,} of {len(self.events):,} events were answered in {timeout_s} s")

    def num_answered_by(self, digest: str) -> int:
        """How many answers one release gave."""
        return sum(answered.release == digest for answered in self.answers)

    async def _play(self) -> None:
        waiting: asyncio.Queue[tuple[str, LiveEvent] | None] = asyncio.Queue(NUM_CONNECTIONS)
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=TIMEOUT_S) as client:
            workers = [asyncio.create_task(self._ask_all(client, waiting)) for _ in range(NUM_CONNECTIONS)]
            due = time.monotonic()
            for index, event in enumerate(self.events):
                due = max(due + self._pause_s(index), time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                await waiting.put(event)
            for _ in workers:
                await waiting.put(None)
            await asyncio.gather(*workers)

    def _pause_s(self, index: int) -> float:
        if self._released.is_set() or index < len(self.events) - self.num_held:
            return 1 / self.per_second
        return 1 / min(TRICKLE_PER_SECOND, self.num_held / TRICKLE_LASTS_S)

    async def _ask_all(self, client: httpx.AsyncClient, waiting: asyncio.Queue[tuple[str, LiveEvent] | None]) -> None:
        while (asked := await waiting.get()) is not None:
            await self._ask(client, *asked)

    async def _ask(self, client: httpx.AsyncClient, detector: str, live: LiveEvent) -> None:
        event = {name: value for name, value in live.event.items() if name != "arrived_us"}
        begun = time.monotonic()
        try:
            response = await client.post("/v1/decisions", json={"detector": detector, "event": event})
            response.raise_for_status()
        except httpx.HTTPError as error:
            self.failures.append(f"{type(error).__name__}: {error}"[:200])
            return
        [answer] = response.json()["decisions"]
        seconds = time.monotonic() - begun
        self.answers.append(Answered(detector, live.truth, tuple(answer["labels"]), answer["release"], seconds))


def events_of(world: World, day: date, detectors: Mapping[str, Detector]) -> list[tuple[str, LiveEvent]]:
    """The events of a day of the world in their order, each with every detector that scores its table."""
    return [
        (name, live)
        for live in world.live_events(day)
        for name, detector in detectors.items()
        if detector.spec.events == live.table
    ]
