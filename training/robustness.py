"""What the attack gym does to a detector: the same test texts clean and disguised, at the released thresholds.

Recall under attack is never told without the benign twins: the test text of the same kind that breaks no rule and is
nearest in length to each harmful one, disguised alike. Scores are stored in attacked.parquet, without any text; every
figure is made from them.

Shapes: N texts, L labels, R replicates.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.attacks import prompt_files
from training.attacks.registry import TECHNIQUES
from training.attacks.technique import Technique
from training.detector import DetectorSpec
from training.evaluation import AttackEvaluation
from training.flags import cuts_of
from training.metrics import Floats, draw_replicates, estimate, estimate_rate
from training.predictions import Predictions
from training.thresholds import Threshold

NUM_TEXTS = 500  # harmful texts, and as many twins
FEWEST_FOUND = 10  # harmful texts found clean; fewer say nothing about what is kept
STORED = "attacked.parquet"
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]


class Scores(Protocol):
    """What answers probabilities [N, L] for a table of records: a scorer, or whatever stands in for one."""

    def score(self, rows: pa.Table) -> Floats:
        """Probabilities of every label."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Positions of the attacked test rows: harmful ones, and their twins."""

    harmful: Rows
    twins: Rows


def choose(test: Predictions, lengths: NDArray[np.integer], *, num_texts: int = NUM_TEXTS) -> Chosen:
    """Harmful texts by chance (seeded), and to each the unused benign text of its kind that is nearest in length."""
    is_drawn = test.weights > 0
    harmful = np.flatnonzero(is_drawn & (test.verdicts == 1).any(axis=1))
    benign = np.flatnonzero(is_drawn & (test.verdicts != 1).all(axis=1) & (test.verdicts == 0).any(axis=1))
    rng = np.random.default_rng(0)
    harmful = np.sort(rng.permutation(harmful)[:num_texts])
    kinds = test.slices.get("kind", np.full(len(test.event_ids), "", dtype=object))
    pools = {
        kind: sorted((int(lengths[row]), int(row)) for row in benign[kinds[benign] == kind]) for kind in set(kinds)
    }
    twins = [_take_nearest(pools[kinds[row]], int(lengths[row])) for row in rng.permutation(harmful)]
    return Chosen(harmful, np.sort(np.array([row for row in twins if row is not None], dtype=np.intp)))


def _take_nearest(pool: list[tuple[int, int]], length: int) -> int | None:
    at = bisect_left(pool, (length, -1))
    near = [i for i in (at - 1, at) if 0 <= i < len(pool)]
    return pool.pop(min(near, key=lambda i: abs(pool[i][0] - length)))[1] if near else None


def attack(
    path: Path,
    spec: DetectorSpec,
    test: Predictions,
    *,
    inputs: pa.Table,
    scorer: Scores,
    data: Path | None = None,
    num_texts: int = NUM_TEXTS,
) -> None:
    """Score chosen test rows under every technique, and write the scores; `inputs` are the test rows, in order.

    `data` is where the files of prompts lie that the gate names.
    """
    name = str(spec.text)
    chosen = choose(test, pc.utf8_length(inputs[name]).to_numpy(), num_texts=num_texts)
    rows = np.concatenate([chosen.harmful, chosen.twins])
    clean = inputs.take(rows)
    parts = []
    for technique in [*TECHNIQUES.values(), *(prompt_files.read(name, data) for name in spec.gate.attack_files)]:
        disguised = pa.array([technique.apply(text) for text in clean[name].to_pylist()], pa.string())
        probabilities = scorer.score(clean.set_column(clean.column_names.index(name), name, disguised))
        facts = {"technique": [technique.name] * len(rows), "event_id": test.event_ids[rows].tolist()}
        parts.append(pa.table(facts | {label: probabilities[:, at] for at, label in enumerate(spec.labels)}))
    pq.write_table(pa.concat_tables(parts), path)


def measure_attacks(
    path: Path, spec: DetectorSpec, test: Predictions, *, scores: Floats, thresholds: dict[str, Threshold]
) -> list[AttackEvaluation]:
    """One evaluation per stored technique; none where no label has a threshold, since then nothing is ever flagged."""
    if all(one.threshold is None for one in thresholds.values()):
        return []
    stored = pq.read_table(path)
    return [
        _measure(technique, pairs, limit=spec.gate.max_twin_ratio)
        for technique, pairs in _pairs(stored, spec, test, scores=scores, cuts=cuts_of(test, thresholds))
        if set(spec.labels) - technique.violates
    ]


@dataclass(frozen=True)
class _Pairs:
    """The same texts clean and disguised: what was flagged [N, L], what is true [N, L]."""

    labels: list[str]
    clean: Bools
    attacked: Bools
    verdicts: NDArray[np.int8]
    weights: Floats
    draws: NDArray[np.uint8]  # [R + 1, N]

    def share(self, flagged: Bools, rows: Bools) -> Floats:
        """The share of some texts of which something is flagged, on every replicate."""
        weights_RN = self.draws[:, rows] * self.weights[rows]
        total = weights_RN.sum(axis=1)
        hits = weights_RN @ flagged[rows]
        return np.divide(hits, total, out=np.full(len(total), np.nan), where=total > 0)


def _pairs(
    stored: pa.Table, spec: DetectorSpec, test: Predictions, *, scores: Floats, cuts: Floats
) -> Iterator[tuple[Technique, _Pairs]]:
    position = {event_id: i for i, event_id in enumerate(test.event_ids)}
    draws = draw_replicates(int(test.entities.max(initial=-1)) + 1)
    for name in dict.fromkeys(stored["technique"].to_pylist()):
        part = stored.filter(pc.equal(stored["technique"], name))
        rows = np.array([position[event_id] for event_id in part["event_id"].to_pylist()])
        attacked = np.column_stack([part[label].to_numpy() for label in spec.labels])
        yield (
            TECHNIQUES.get(name) or prompt_files.technique(name.removeprefix(prompt_files.PREFIX)),
            _Pairs(
                labels=spec.labels,
                clean=scores[rows] >= cuts[rows],
                attacked=attacked >= cuts[rows],
                verdicts=test.verdicts[rows],
                weights=test.weights[rows],
                draws=draws[:, test.entities[rows]],
            ),
        )


def _measure(technique: Technique, pairs: _Pairs, *, limit: float) -> AttackEvaluation:
    """A harmful text counts as found where a label that is true of it is flagged; a twin where one that is not is."""
    counts = np.array([label not in technique.violates for label in pairs.labels])
    is_true, is_false = (pairs.verdicts == 1) & counts, (pairs.verdicts == 0) & counts
    harmful = is_true.any(axis=1)
    twins = ~(pairs.verdicts == 1).any(axis=1) & is_false.any(axis=1)
    found, still_found = ((flags & is_true).any(axis=1) for flags in (pairs.clean, pairs.attacked))
    burdened, still_burdened = ((flags & is_false).any(axis=1) for flags in (pairs.clean, pairs.attacked))
    recalls = [pairs.share(hits, harmful) for hits in (found, still_found)]
    rates = [pairs.share(hits, twins) for hits in (burdened, still_burdened)]
    is_measured = (found & harmful).sum() >= FEWEST_FOUND
    kept = np.divide(recalls[1], recalls[0], out=np.full(len(recalls[0]), np.nan), where=recalls[0] > 0)
    return AttackEvaluation(
        technique=technique.name,
        is_seen=technique.is_seen,
        num_harmful=int(harmful.sum()),
        num_twins=int(twins.sum()),
        recall_clean=estimate_rate(recalls[0], pairs.weights[harmful]),
        recall=estimate_rate(recalls[1], pairs.weights[harmful]),
        recall_kept=estimate(kept) if is_measured else None,
        twin_fpr_clean=estimate_rate(rates[0], pairs.weights[twins]),
        twin_fpr=estimate_rate(rates[1], pairs.weights[twins]),
        twin_excess=estimate(rates[1] - limit * rates[0]),
        kept_by_label=dict(_kept_by_label(pairs, counts)),
    )


def _kept_by_label(pairs: _Pairs, counts: Bools) -> Iterator[tuple[str, float | None]]:
    for at in np.flatnonzero(counts):
        is_true = pairs.verdicts[:, at] == 1
        found, still_found = (pairs.share(flags[:, at], is_true)[0] for flags in (pairs.clean, pairs.attacked))
        is_measured = (pairs.clean[:, at] & is_true).sum() >= FEWEST_FOUND
        yield pairs.labels[at], float(still_found / found) if is_measured else None
