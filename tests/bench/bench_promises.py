"""500 seeded worlds: how often a proved promise breaks, and a naive one; how often a provable one is proved."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from tests.bench.harness import IS_SMALL, report
from training.metrics import Sample
from training.policy import Promise
from training.thresholds import choose

LIMITS = {"broken_share": "<= 0.05", "feasible_power": ">= 0.95"}
NUM_WORLDS = 60 if IS_SMALL else 500
MAX_ROWS = 60_000 if IS_SMALL else 400_000  # ten times the needed rows beyond this are not drawn


@dataclass(frozen=True)
class World:
    """A population known in closed form: scores are standard normal, and normal around `signal` for violations."""

    seed: int
    prevalence: float
    signal: float
    num_rows: int
    promise: Promise

    def draw(self, num_rows: int, *, salt: int) -> Sample:
        generator = np.random.default_rng([self.seed, salt])
        labels = generator.random(num_rows) < self.prevalence
        scores = norm.cdf(generator.normal(size=num_rows) + self.signal * labels).astype(np.float32)
        return Sample(scores, labels, np.ones(num_rows), np.arange(num_rows))

    def truth(self, thresholds: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The population's benign false-positive rate and share of flagged violations at a threshold."""
        cut = norm.ppf(thresholds)
        return norm.sf(cut), norm.sf(cut - self.signal)

    def keeps(self, threshold: float) -> bool:
        fpr, recall = self.truth(np.array([threshold], dtype=np.float64))
        if self.promise.kind == "benign_fpr":
            return bool(fpr[0] <= self.promise.limit)
        flagged = recall[0] * self.prevalence + fpr[0] * (1 - self.prevalence)
        return bool(recall[0] * self.prevalence >= self.promise.limit * flagged)

    def num_needed(self) -> float:
        """Rows with which the best threshold proves the promise if every count is as expected; inf where none can."""
        if self.promise.kind == "benign_fpr":
            return np.log(1 - self.promise.confidence) / np.log(1 - self.promise.limit) / (1 - self.prevalence)
        fpr, recall = self.truth(norm.cdf(np.linspace(-2, 6, 400)))
        flagged = recall * self.prevalence + fpr * (1 - self.prevalence)
        precision = recall * self.prevalence / flagged
        sizes = np.unique(np.geomspace(10, 1e6, 400).astype(int))[:, None]
        bounds = beta.ppf(1 - self.promise.confidence, sizes * precision, sizes * (1 - precision) + 1)
        rows = np.where(bounds >= self.promise.limit, sizes / flagged, np.inf)
        return float(rows.min())


def worlds() -> list[World]:
    generator = np.random.default_rng(0)
    return [
        World(
            seed=seed,
            prevalence=float(np.exp(generator.uniform(np.log(0.001), np.log(0.2)))),
            signal=float(generator.uniform(0.5, 4)),
            num_rows=int(np.exp(generator.uniform(np.log(200), np.log(20_000)))),
            promise=_promise(generator, "benign_fpr" if seed % 2 else "precision"),
        )
        for seed in range(NUM_WORLDS)
    ]


def _promise(generator: np.random.Generator, kind: Literal["benign_fpr", "precision"]) -> Promise:
    limits = [0.001, 0.005, 0.01, 0.02, 0.05] if kind == "benign_fpr" else [0.5, 0.7, 0.8, 0.9, 0.95]
    return Promise(kind=kind, limit=float(generator.choice(limits)))


def naive(promise: Promise, sample: Sample) -> float | None:
    """The loosest threshold whose plain share on the same rows keeps the promise: what is usually done."""
    order = np.argsort(-sample.scores)
    num_hits, num_flagged = np.cumsum(sample.labels[order]), np.arange(1, len(order) + 1)
    if promise.kind == "benign_fpr":
        is_kept = num_flagged - num_hits <= promise.limit * (~sample.labels).sum()
    else:
        is_kept = num_hits >= promise.limit * num_flagged
    return float(sample.scores[order][np.flatnonzero(is_kept)[-1]]) if is_kept.any() else None


def power(world: World) -> bool | None:
    """Is it declared feasible with ten times the needed rows? None where that is out of reach."""
    num_rows = 10 * world.num_needed()
    if num_rows > MAX_ROWS:
        return None
    rows, guide = world.draw(int(num_rows), salt=3), world.draw(int(num_rows), salt=4)
    return choose(world.promise, rows, guide=guide).threshold is not None


def main() -> None:
    outcomes = []
    for world in worlds():
        rows, guide = world.draw(world.num_rows, salt=1), world.draw(world.num_rows, salt=2)
        found, usual = choose(world.promise, rows, guide=guide).threshold, naive(world.promise, rows)
        outcomes.append(
            {
                "kind": world.promise.kind,
                "kept": None if found is None else world.keeps(found),
                "naive_kept": None if usual is None else world.keeps(usual),
                "declared_at_10x": power(world),
            }
        )
    report("promises", summarize(outcomes), limits=LIMITS, raw=outcomes)


def summarize(outcomes: list[dict[str, object]]) -> dict[str, object]:
    """The judged figures over all worlds, and the same for each kind of promise."""
    figures: dict[str, object] = {}
    for kind in ("all", "benign_fpr", "precision"):
        rows = [outcome for outcome in outcomes if kind in (outcome["kind"], "all")]
        kept, naive_kept, declared = (_known(rows, name) for name in ("kept", "naive_kept", "declared_at_10x"))
        prefix = "" if kind == "all" else f"{kind}_"
        figures[f"{prefix}broken_share"] = float(1 - np.mean(kept))
        figures[f"{prefix}naive_broken_share"] = float(1 - np.mean(naive_kept))
        figures[f"{prefix}feasible_power"] = float(np.mean(declared))
        figures |= {f"{prefix}worlds": len(rows), f"{prefix}feasible_worlds": len(kept)}
    return figures


def _known(rows: list[dict[str, object]], name: str) -> list[bool]:
    return [bool(row[name]) for row in rows if row[name] is not None]


if __name__ == "__main__":
    main()
