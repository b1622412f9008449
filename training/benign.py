"""Texts that break no rule, in named suites: how many of them a detector flags, and of which label it takes them for.

Suites of our own come from the grammars of benign_suites.yaml. Any other name is a folder of the data directory: the
texts of NAME/data.parquet, of its test split and with label 0 where it has such columns; they are read, never copied.
Scores are stored in benign.parquet, without any text; every figure is made from them.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from training.detector import DetectorSpec
from training.evaluation import SuiteEvaluation
from training.metrics import Estimate, binomial_interval
from training.robustness import Scores
from training.thresholds import Threshold

STORED = "benign.parquet"
NUM_GENERATED = 300  # texts of a suite of our own
MOST_TEXTS = 3000  # of a suite from a file, by a seeded draw
_SLOT = re.compile(r"\{(\w+)\}")


class SuiteMissing(ValueError):
    """A suite that is neither ours nor to be had from the data directory."""


def read_suite(name: str, data: Path | None) -> list[str]:
    """The texts of a suite."""
    if suite := own_suites().get(name):
        return _generate(suite["texts"], suite["words"], seed=name)
    path = data / name / "data.parquet" if data else None
    if path is None or not path.exists():
        where = "no data directory is set (MEWS_DATA)" if data is None else "the data directory lacks it"
        raise SuiteMissing(f"{name!r} is none of {', '.join(own_suites())}, and {where}")
    try:
        texts = _benign_texts(path)
    except (pa.ArrowException, KeyError) as error:
        raise SuiteMissing(f"{name!r} cannot be read: {error}") from error
    if not texts:
        raise SuiteMissing(f"{name!r} has no text of the split 'test' with label 0")
    return [texts[at] for at in np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST_TEXTS])]


def _benign_texts(path: Path) -> list[str]:
    """Those of the test split with label 0, where a file has such columns."""
    rows = pq.read_table(path)
    for column, value in (("split", pa.scalar("test")), ("label", pa.scalar(0.0))):
        if column in rows.column_names:
            rows = rows.filter(pc.equal(rows[column].cast(value.type), value))
    return rows["text"].cast(pa.string()).drop_null().to_pylist()


def read_contrasts(name: str) -> tuple[list[str], list[str]]:
    """The texts that break a rule in the words of a suite of ours, and the labels that they break; it may have none."""
    suite = own_suites()[name]
    return _generate(suite.get("contrasts", []), suite["words"], seed=name), suite.get("violates", [])


def store(path: Path, spec: DetectorSpec, *, scorer: Scores, data: Path | None) -> dict[str, str]:
    """Score every suite that the detector names and write the scores; return why which one could not be had."""
    parts, missing = [_empty(spec)], {}
    for name in spec.gate.benign_suites:
        try:
            texts = read_suite(name, data)
        except SuiteMissing as error:
            missing[name] = str(error)
            continue
        probabilities = scorer.score(_records(texts, spec))
        scores = {label: pa.array(probabilities[:, at], pa.float32()) for at, label in enumerate(spec.labels)}
        parts.append(pa.table({"suite": pa.array([name] * len(texts)), **scores}))
    pq.write_table(pa.concat_tables(parts), path)
    return missing


def measure_suites(
    path: Path, spec: DetectorSpec, *, thresholds: Mapping[str, Threshold], missing: Mapping[str, str]
) -> list[SuiteEvaluation]:
    """Count what is flagged at the released thresholds, by any label and by each; of no segment, so at the loosest."""
    stored = pq.read_table(path)
    cuts = {label: one.loosest for label, one in thresholds.items() if one.threshold is not None}
    return [
        SuiteEvaluation(suite=name, why=missing[name])
        if name in missing
        else _measure(name, stored.filter(pc.equal(stored["suite"], name)), cuts)
        for name in spec.gate.benign_suites
    ]


def _measure(name: str, rows: pa.Table, cuts: Mapping[str, float]) -> SuiteEvaluation:
    flagged = {label: rows[label].to_numpy() >= cut for label, cut in cuts.items()}
    num_flagged = int(np.any(list(flagged.values()), axis=0).sum()) if flagged else 0
    low, high = binomial_interval(num_flagged, len(rows), confidence=0.95)
    return SuiteEvaluation(
        suite=name,
        num_texts=len(rows),
        num_flagged=num_flagged,
        flagged=Estimate(value=num_flagged / len(rows), low=low, high=high),
        by_label={label: int(flags.sum()) for label, flags in flagged.items() if flags.any()},
    )


def _generate(texts: list[str], words: dict[str, list[str]], *, seed: str) -> list[str]:
    """Distinct texts of a grammar, its templates in turn."""
    found = dict.fromkeys(_fill(texts, words, Random(seed)))
    return list(found)[:NUM_GENERATED]


def _fill(texts: list[str], words: dict[str, list[str]], rng: Random) -> Iterator[str]:
    for at in range(4 * NUM_GENERATED if texts else 0):
        yield _SLOT.sub(lambda slot: rng.choice(words[slot[1]]), texts[at % len(texts)])


def _records(texts: list[str], spec: DetectorSpec) -> pa.Table:
    """Texts of which nothing else is known."""
    sources = {name for ratio in spec.ratios for name in (ratio.numerator, ratio.denominator)}
    unknown = {name: pa.nulls(len(texts), pa.float64()) for name in sorted({*spec.numbers, *spec.categories, *sources})}
    return pa.table({**unknown, str(spec.text): texts})


def _empty(spec: DetectorSpec) -> pa.Table:
    return pa.table(
        {"suite": pa.array([], pa.string()), **{label: pa.array([], pa.float32()) for label in spec.labels}}
    )


@cache
def own_suites() -> dict[str, dict[str, Any]]:
    """The grammars of the suites of our own, by name."""
    return yaml.safe_load(Path(__file__).with_name("benign_suites.yaml").read_text(encoding="utf-8"))["suites"]
