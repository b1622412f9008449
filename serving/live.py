"""A release in memory with the policy that acts on it: from events to features and scores, in one call per batch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from feature_repo.online import FeatureRow, FeaturesUnavailable, OnlineFeatures
from feature_repo.tables import EVENT_TABLES
from feature_repo.view import LATE_US
from serving.cuts import Cut
from serving.decide import Limit
from serving.record import Features, PolicyRef
from training.cascade import Cascade
from training.detector import DetectorSpec
from training.policy import Policy

Event = Mapping[str, Any]
_NO_NUMBER = "the detector answered no number"
LONG = 1000  # characters, which are about the 256 pieces of one window


class Scorer(Protocol):
    """What a sealed release can do: calibrated probabilities, one row per event and one column per label.

    Where it is a cascade it also says which events its first member answered alone.
    """

    @property
    def spec(self) -> DetectorSpec: ...  # noqa: D102

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray | None]: ...  # noqa: D102


class Timing(NamedTuple):
    """When a batch was begun, had its features and had its scores, nanoseconds since 1970; and how many it held."""

    begun_ns: int
    read_ns: int
    scored_ns: int
    num_events: int


@dataclass(frozen=True)
class Assessment:
    """Scores of one event and what they came from; without scores, why not.

    `ended_early` says whether the first member of a cascade answered alone; `timing` is that of the whole batch.
    """

    at_us: int
    features: Features
    scores: dict[str, float] | None
    why_not: str = ""
    ended_early: bool | None = None
    timing: Timing | None = None


class Glanced(NamedTuple):
    """An assessment by the first member of a cascade; with a `row`, the whole network is to be asked about it."""

    assessment: Assessment
    row: Event | None = None


@dataclass(frozen=True)
class Live:
    """One release with one policy; immutable, so that a change of either is the swap of one reference."""

    release: str
    policy: Policy
    policy_ref: PolicyRef
    cuts: Mapping[str, Cut]
    scorer: Scorer
    reader: OnlineFeatures | None
    hotfix: Limit | None = None

    def __post_init__(self) -> None:
        if silent := [label for label in self.spec.labels if label not in self.policy.labels]:
            raise ValueError(f"policy {self.policy.name!r} version {self.policy.version} says nothing about {silent}")

    @property
    def spec(self) -> DetectorSpec:
        """The sealed spec of the release."""
        return self.scorer.spec

    @cached_property
    def limits(self) -> list[Limit]:
        """What each action needs room in: the policy's daily budget, and that of the hotfix where there is one."""
        mine = Limit(self.policy.name, "policy", self.policy.max_actions_per_day)
        return [mine, self.hotfix] if self.hotfix else [mine]

    @cached_property
    def inputs(self) -> list[str]:
        """The features that the scores depend on: what the spec reads and the event does not bring."""
        spec = self.spec
        read = [*spec.numbers, *spec.categories, *(n for r in spec.ratios for n in (r.numerator, r.denominator))]
        return sorted(set(read) - set(EVENT_TABLES[spec.events].columns))

    def assess(self, events: Sequence[Event]) -> list[Assessment]:
        """Read the features of these events as of now and score them."""
        glanced = self.glance(events)
        settled = iter(self.settle([one for one in glanced if one.row is not None]))
        return [one.assessment if one.row is None else next(settled) for one in glanced]

    def glance(self, events: Sequence[Event]) -> list[Glanced]:
        """As `assess`, but of a cascade only what its first member answers alone."""
        begun_ns = time.time_ns()
        at_us = begun_ns // 1000
        try:
            features = self._features(events, at_us)
        except FeaturesUnavailable as error:
            nothing = Features(missing=self.inputs)
            return [Glanced(Assessment(at_us, nothing, None, f"features are unavailable ({error})")) for _ in events]
        rows = [{**event, **known.values} for event, known in zip(events, features, strict=True)]
        read_ns = time.time_ns()
        first = self.scorer.glance if isinstance(self.scorer, Cascade) else self.scorer.judge
        probabilities, early = first(rows)
        timing = Timing(begun_ns, read_ns, time.time_ns(), len(rows))
        ended = [None] * len(rows) if early is None else early.tolist()
        found = zip(rows, features, self._by_label(probabilities), ended, strict=True)
        return [
            Glanced(
                Assessment(at_us, known, scores, _why_not(scores), ended_early=end, timing=timing),
                row=row if end is False else None,
            )
            for row, known, scores, end in found
        ]

    def settle(self, glanced: Sequence[Glanced]) -> list[Assessment]:
        """Score with the whole network what its first member did not answer alone."""
        if not glanced:
            return []
        assert isinstance(self.scorer, Cascade)
        scores = self._by_label(self.scorer.whole.score([one.row for one in glanced if one.row is not None]))
        scored_ns = time.time_ns()
        return [
            replace(
                one.assessment,
                scores=by_label,
                why_not=_why_not(by_label),
                timing=_until(scored_ns, one.assessment.timing, len(glanced)),
            )
            for one, by_label in zip(glanced, scores, strict=True)
        ]

    @cached_property
    def encodes_all(self) -> bool:
        """Whether every event goes through an encoder, and nothing is read from a store before it."""
        is_cascade = isinstance(self.scorer, Cascade)
        return "encoder" in self.spec.fit.readers and not is_cascade and not self.inputs

    def is_long(self, event: Event) -> bool:
        """Whether an encoder reads the event's text in several windows."""
        return self.spec.text is not None and len(event[self.spec.text]) > LONG

    def thresholds(self, row: Event) -> dict[str, float | None]:
        """The threshold of each label for an event with its features."""
        return {label: cut.at(row) for label, cut in self.cuts.items()}

    @property
    def review_from(self) -> dict[str, float | None]:
        """Where each label's band begins that people look at."""
        return {label: cut.review_from for label, cut in self.cuts.items()}

    def score(self, rows: Sequence[Event]) -> list[dict[str, float] | None]:
        """Probabilities by label of rows with the event's columns and the features; None where one is no number."""
        return self._by_label(self.scorer.judge(rows)[0])

    def _by_label(self, probabilities: np.ndarray) -> list[dict[str, float] | None]:
        """What is no number would be below every threshold: it must count as no answer."""
        is_number = np.isfinite(probabilities).all(axis=1).tolist()
        found = zip(probabilities.tolist(), is_number, strict=True)
        return [dict(zip(self.spec.labels, row, strict=True)) if is_one else None for row, is_one in found]

    def _features(self, events: Sequence[Event], at_us: int) -> list[Features]:
        inputs = self.inputs
        if not inputs or self.reader is None:
            return [Features()] * len(events)
        rows = self.reader.read(events, [_moment(event, at_us) for event in events], table=self.spec.events)
        return [_used(row, inputs) for row in rows]


def _why_not(scores: dict[str, float] | None) -> str:
    return "" if scores is not None else _NO_NUMBER


def _until(scored_ns: int, timing: Timing | None, num_events: int) -> Timing | None:
    return timing and timing._replace(scored_ns=scored_ns, num_events=num_events)


def _moment(event: Event, now_us: int) -> int:
    """Features are those just before the event; what lies ahead, or is late by the lake's rule, is now."""
    event_us = event.get("event_us") or now_us
    return event_us if now_us - LATE_US <= event_us <= now_us else now_us


def _used(row: FeatureRow, inputs: list[str]) -> Features:
    return Features(
        values={name: row.values[name] for name in inputs},
        missing=[name for name in inputs if row.absent.get(name) == "missing"],
        expired=[name for name in inputs if row.absent.get(name) == "expired"],
    )
