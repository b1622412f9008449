"""The world: a simulated AI service whose truth is known, written day by day into the lake's inbox."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.lake import DAY_US, Lake
from orchestration.world.accounts import MISUSE, accounts_of
from orchestration.world.campaigns import cast, dishonest_cohort
from orchestration.world.grammar import LABELS
from orchestration.world.payments import payments_of
from orchestration.world.population import honest_cohort
from orchestration.world.requests import requests_of
from orchestration.world.rows import Day, Happened
from orchestration.world.scale import Scale
from orchestration.world.verdicts import LONGEST_DAYS, verdicts_of

TRUTH = {"requests": LABELS, "payments": ("fraud",), "accounts": MISUSE}


@dataclass(frozen=True)
class Summary:
    """How many rows were written, per table."""

    num_rows: dict[str, int]

    @property
    def num_events(self) -> int:
        """Rows of the event tables: all but labels."""
        return sum(count for table, count in self.num_rows.items() if table != "labels")


@dataclass(frozen=True)
class LiveEvent:
    """An event as the service would be asked about it, and what is true of it."""

    table: str
    event: dict[str, Any]
    truth: dict[str, int]
    campaign: str | None


@dataclass(frozen=True)
class World:
    """A service that opens on `scale.start`; its days go on for as long as one asks for more."""

    scale: Scale = field(default_factory=Scale)

    def days(self) -> list[date]:
        """The dates of the world's days."""
        return [self.scale.date_of(day) for day in range(self.scale.num_days)]

    def generate(
        self,
        lake: Lake,
        first: date | None = None,
        last: date | None = None,
        *,
        before_us: int | None = None,
    ) -> Summary:
        """Write the days from first to last (default: all) into the inbox, and their truth into the zone `truth`.

        Labels are written on the day on which they become known, so those about the last days come with later days.
        Events that arrive at `before_us` or later are left out. Writing a day again changes nothing.
        """
        start = self.scale.day_of(first or self.days()[0])
        stop = self.scale.day_of(last or self.days()[-1])
        counts: dict[str, int] = defaultdict(int)
        pending: list[pa.Table] = []
        for number in range(max(0, start - LONGEST_DAYS), stop + 1):
            events = self.events(number)
            pending.append(verdicts_of(self._day(number), events))
            if number >= start:
                known, pending = _split_known(pending, before_us=self.scale.start_us(number + 1))
                arrived = {table: each.arrived(before_us) for table, each in events.items()}
                for table, count in self._write_day(lake, number, events=arrived, labels=known).items():
                    counts[table] += count
            elif number == start - 1:
                _, pending = _split_known(pending, before_us=self.scale.start_us(start))
        return Summary(dict(counts))

    def events(self, number: int) -> dict[str, Happened]:
        """What happened on a day (0 is the first), per table, with its truth."""
        day = self._day(number)
        requests, payments = requests_of(day), payments_of(day)
        return {"requests": requests, "payments": payments, "accounts": accounts_of(day, [requests, payments])}

    def live_events(self, when: date) -> Iterator[LiveEvent]:
        """The events of a day in the order in which they happen; writes nothing."""
        events = self.events(self.scale.day_of(when))
        return iter(sorted((e for h in events.values() for e in _live(h)), key=lambda e: e.event["event_us"]))

    def verdicts_on(self, when: date) -> pa.Table:
        """What becomes known on a day about the events of the days before it."""
        number = self.scale.day_of(when)
        before = range(max(0, number - LONGEST_DAYS), number)
        verdicts = pa.concat_tables([verdicts_of(self._day(n), self.events(n)) for n in before])
        start_us = self.scale.start_us(number)
        known_us = verdicts["known_us"]
        return verdicts.filter(pc.and_(pc.greater_equal(known_us, start_us), pc.less(known_us, start_us + DAY_US)))

    def _write_day(self, lake: Lake, number: int, *, events: dict[str, Happened], labels: pa.Table) -> dict[str, int]:
        when = self.scale.date_of(number)
        for table, happened in events.items():
            lake.write("inbox", table, happened.rows, day=when)
            lake.write("truth", f"{table}_truth", happened.truth, day=when)
        if len(labels):
            lake.write("inbox", "labels", labels, day=when)
        return {**{table: len(happened.rows) for table, happened in events.items()}, "labels": len(labels)}

    def _day(self, number: int) -> Day:
        accounts = np.concatenate([self._cohort(day) for day in range(number + 1)])
        return Day(self.scale, number, accounts, cast(self.scale, accounts, number))

    def _cohort(self, number: int) -> np.ndarray:
        if number not in self._cohorts:
            parts = [honest_cohort(self.scale, number), dishonest_cohort(self.scale, number)]
            self._cohorts[number] = np.concatenate(parts)
        return self._cohorts[number]

    @cached_property
    def _cohorts(self) -> dict[int, np.ndarray]:
        return {}


def _split_known(pending: list[pa.Table], *, before_us: int) -> tuple[pa.Table, list[pa.Table]]:
    """Part the verdicts into those known before a moment and those that are not yet."""
    verdicts = pa.concat_tables(pending)
    is_known = pc.less(verdicts["known_us"], before_us)
    return verdicts.filter(is_known), [verdicts.filter(pc.invert(is_known))]


def _live(happened: Happened) -> Iterator[LiveEvent]:
    for event, facts in zip(happened.rows.to_pylist(), happened.truth.to_pylist(), strict=True):
        truth = {label: facts[label] for label in TRUTH[happened.table]}
        yield LiveEvent(happened.table, event, truth, facts["campaign"])
