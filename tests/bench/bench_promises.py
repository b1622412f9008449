"""500 seeded worlds: how often a proved promise breaks, and a naive one; how often a provable one is proved.

A third of the worlds has segments: the promise must then hold in each of them at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from tests.bench.harness import IS_SMALL, report
from training.metrics import Sample
from training.per_segment import choose_per_segment
from training.policy import Promise
from training.thresholds import OTHER, Threshold, choose

LIMITS = {"broken_share": "<= 0.05", "feasible_power": ">= 0.95"}
NUM_WORLDS = 60 if IS_SMALL else 500
MAX_ROWS = 60_000 if IS_SMALL else 400_000  # ten times the needed rows beyond this are not drawn
Kind = Literal["benign_fpr", "precision", "recall"]
KINDS: tuple[Kind, ...] = ("benign_fpr", "precision", "recall")
OFFERED = {"benign_fpr": [0.001, 0.005, 0.01, 0.02, 0.05], "precision": [0.5, 0.7, 0.8, 0.9, 0.95]}
OFFERED["recall"] = [0.3, 0.5, 0.7, 0.8, 0.9]


@dataclass(frozen=True)
class Segment:
    """A part of a population, known in closed form: scores are standard normal, and around `signal` for violations."""

    share: float
    prevalence: float
    signal: float

    def masses(self, thresholds: NDArray[np.floating]) -> NDArray[np.floating]:
        """Per threshold the masses of violations and of benign events that are flagged, and of all of either [4, T]."""
        cut = norm.ppf(thresholds)
        positive, benign = self.share * self.prevalence, self.share * (1 - self.prevalence)
        found = positive * norm.sf(cut - self.signal), benign * norm.sf(cut)
        return np.array([*found, np.full_like(cut, positive), np.full_like(cut, benign)])


def rate(kind: Kind, parts: Sequence[Segment], thresholds: NDArray[np.floating]) -> NDArray[np.floating]:
    """What a promise of a kind is about, on the population of some segments."""
    true, false, positive, benign = np.sum([part.masses(thresholds) for part in parts], axis=0)
    return {"benign_fpr": false / benign, "precision": true / (true + false), "recall": true / positive}[kind]


@dataclass(frozen=True)
class World:
    """A population of one or more segments, a promise about it, and how many labels there are."""

    seed: int
    segments: tuple[Segment, ...]
    num_rows: int
    promise: Promise

    def draw(self, num_rows: int, *, salt: int) -> tuple[Sample, NDArray[np.object_]]:
        generator = np.random.default_rng([self.seed, salt])
        which = generator.choice(len(self.segments), num_rows, p=[s.share for s in self.segments])
        prevalence, signal = (np.array([getattr(s, f) for s in self.segments])[which] for f in ("prevalence", "signal"))
        labels = generator.random(num_rows) < prevalence
        scores = norm.cdf(generator.normal(size=num_rows) + signal * labels).astype(np.float32)
        return Sample(scores, labels, np.ones(num_rows), np.arange(num_rows)), which.astype(str).astype(object)

    def choose(self, num_rows: int, *, salt: int) -> Threshold:
        (rows, segments), (guide, guide_segments) = (self.draw(num_rows, salt=salt + i) for i in (0, 1))
        if self.promise.per is None:
            return choose(self.promise, rows, guide=guide)
        return choose_per_segment(self.promise, rows, guide=guide, segments=segments, guide_segments=guide_segments)

    def groups(self, found: Threshold) -> list[tuple[list[Segment], float | None]]:
        """The parts that have a threshold of their own, with it; rare segments share one."""
        if self.promise.per is None:
            return [(list(self.segments), found.threshold)]
        named = {str(i): part for i, part in enumerate(self.segments)}
        alone = [([part], found.at(value)) for value, part in named.items() if value in found.segments]
        rare = [part for value, part in named.items() if value not in found.segments]
        return [*alone, (rare, found.at(OTHER))] if rare else alone

    def keeps(self, parts: list[Segment], threshold: float) -> bool:
        single = np.float32(threshold)  # a score reaches it from half a step below on: scores are rounded to it
        reached = (np.float64(single) + np.float64(np.nextafter(single, np.float32(-1)))) / 2
        value = float(rate(self.promise.kind, parts, np.array([reached]))[0])
        return value <= self.promise.limit if self.promise.kind == "benign_fpr" else value >= self.promise.limit

    def num_needed(self) -> float:
        """Rows with which the best threshold proves the promise if every count is as expected; inf where none can."""
        if self.promise.per is None:
            return _num_needed(self.promise, self.segments)
        error = (1 - self.promise.confidence) / (len(self.segments) + 1)
        shared = self.promise.model_copy(update={"confidence": 1 - error})
        return max(_num_needed(shared, [replace(part, share=1.0)]) / part.share for part in self.segments)


def _num_needed(promise: Promise, parts: Sequence[Segment]) -> float:
    prevalence = sum(part.share * part.prevalence for part in parts)
    error = 1 - promise.confidence
    if promise.kind == "benign_fpr":
        return np.log(error) / np.log(1 - promise.limit) / (1 - prevalence)
    if promise.kind == "recall":
        return np.log(error) / np.log(promise.limit) / prevalence
    thresholds = norm.cdf(np.linspace(-2, 6, 400))
    true, false, _, _ = np.sum([part.masses(thresholds) for part in parts], axis=0)
    precision, sizes = true / (true + false), np.unique(np.geomspace(10, 1e6, 400).astype(int))[:, None]
    bounds = beta.ppf(error, sizes * precision, sizes * (1 - precision) + 1)
    return float(np.where(bounds >= promise.limit, sizes / (true + false), np.inf).min())


def worlds() -> list[World]:
    generator = np.random.default_rng(0)
    return [_world(seed, generator) for seed in range(NUM_WORLDS)]


def _world(seed: int, generator: np.random.Generator) -> World:
    kind, is_segmented = KINDS[seed % 3], seed // 3 % 3 == 2
    shares = generator.dirichlet(np.full(int(generator.integers(2, 5)), 2.0)) if is_segmented else np.ones(1)
    segments = tuple(
        Segment(
            share=float(share),
            prevalence=float(np.exp(generator.uniform(np.log(0.001), np.log(0.2)))),
            signal=float(generator.uniform(0.5, 4)),
        )
        for share in shares
    )
    limit = float(generator.choice(OFFERED[kind]))
    num_rows = int(np.exp(generator.uniform(np.log(200), np.log(20_000))))
    return World(seed, segments, num_rows, Promise(kind=kind, limit=limit, per="segment" if is_segmented else None))


def naive(promise: Promise, sample: Sample) -> float | None:
    """The threshold whose plain share on the same rows just keeps the promise: what is usually done."""
    order = np.argsort(-sample.scores)
    num_hits, num_flagged = np.cumsum(sample.labels[order]), np.arange(1, len(order) + 1)
    if promise.kind == "benign_fpr":
        kept = np.flatnonzero(num_flagged - num_hits <= promise.limit * (~sample.labels).sum())[-1:]
    elif promise.kind == "precision":
        kept = np.flatnonzero(num_hits >= promise.limit * num_flagged)[-1:]
    else:
        kept = np.flatnonzero(num_hits >= max(1, promise.limit * sample.labels.sum()))[:1]
    return float(sample.scores[order][kept[0]]) if len(kept) else None


def kept_naively(world: World) -> bool | None:
    """Does the naive threshold, in each segment its own, keep the promise? None where it names none."""
    sample, segments = world.draw(world.num_rows, salt=1)
    parts = [(part, sample.where(segments == str(i))) for i, part in enumerate(world.segments)]
    found = [(part, naive(world.promise, rows)) for part, rows in parts]
    kept = [world.keeps([part], threshold) for part, threshold in found if threshold is not None]
    return all(kept) if kept else None


def kept(world: World) -> bool | None:
    """Does what was declared feasible hold, in all segments at once? None where nothing was."""
    found = world.choose(world.num_rows, salt=1)
    held = [world.keeps(parts, threshold) for parts, threshold in world.groups(found) if threshold is not None]
    return all(held) if held else None


def power(world: World) -> bool | None:
    """Is it declared feasible with ten times the needed rows? None where that is out of reach."""
    num_rows = 10 * world.num_needed()
    if num_rows > MAX_ROWS:
        return None
    found = world.choose(int(num_rows), salt=3)
    return all(threshold is not None for _, threshold in world.groups(found))


def main() -> None:
    outcomes = [
        {
            "kind": world.promise.kind,
            "segments": len(world.segments),
            "kept": kept(world),
            "naive_kept": kept_naively(world),
            "declared_at_10x": power(world),
        }
        for world in worlds()
    ]
    report("promises", summarize(outcomes), limits=LIMITS, raw=outcomes)


def summarize(outcomes: list[dict[str, object]]) -> dict[str, object]:
    """The judged figures over all worlds, and the same for each kind of promise and for segmented worlds."""
    figures: dict[str, object] = {}
    parts = {"": outcomes} | {f"{kind}_": [o for o in outcomes if o["kind"] == kind] for kind in KINDS}
    parts["segmented_"] = [o for o in outcomes if o["segments"] != 1]
    for prefix, rows in parts.items():
        known = {name: [bool(o[name]) for o in rows if o[name] is not None] for name in rows[0]}
        figures[f"{prefix}broken_share"] = float(1 - np.mean(known["kept"]))
        figures[f"{prefix}naive_broken_share"] = float(1 - np.mean(known["naive_kept"]))
        figures[f"{prefix}feasible_power"] = float(np.mean(known["declared_at_10x"]))
        figures |= {f"{prefix}worlds": len(rows), f"{prefix}feasible_worlds": len(known["kept"])}
        figures[f"{prefix}power_worlds"] = Counter(o["declared_at_10x"] is not None for o in rows)[True]
    return figures


if __name__ == "__main__":
    main()
