"""The stored predictions of a run, with what its training set knows about the same rows.

Shapes: N rows, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training import text_slices
from training.detector import DetectorSpec
from training.metrics import Floats, Sample
from training.near_duplicates import read_kept
from training.segments import is_number

SAMPLED = "sampling_probability"
_ENTITY_COLUMNS = ("account_id", "card_id", "merchant_id", "device_id", "ip")
_CARD_COLUMNS = ("card_id", "account_id")
_ALWAYS_SLICED = ("source", "kind", "length", "script", "entity_seen", "account_age_s")


@dataclass(frozen=True)
class Predictions:
    """Scores and verdicts, row by row.

    `logits`, `verdicts` and `label_weights` are [N, L]. A verdict is 1, 0 or -1 (not known). A weight is 1 / sampling
    probability, and 0 for what was not drawn with a known probability (someone reported it): it teaches, but says
    nothing about the population. `weights` [N] are of the draw of a row that was the likeliest, for questions about all
    of its labels; `label_weights` of the draw that each verdict came from.
    """

    labels: list[str]
    event_ids: NDArray[np.object_]
    splits: NDArray[np.object_]
    event_us: NDArray[np.int64]
    logits: Floats
    verdicts: NDArray[np.int8]
    weights: Floats
    label_weights: Floats
    entities: NDArray[np.int64]
    cards: NDArray[np.object_]
    slices: dict[str, NDArray[np.object_]]
    first_logits: Floats | None = None  # of the network's first member, where a cascade asks it

    def of(self, split: str) -> "Predictions":
        """The rows of one split; entities keep their numbers."""
        rows = self.splits == split
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        slices = {name: value[rows] for name, value in self.slices.items()}
        return Predictions(labels=self.labels, slices=slices, **arrays)

    def known(self, label: str) -> NDArray[np.intp]:
        """The rows that can say something about a label in the population."""
        column = self.labels.index(label)
        return np.flatnonzero((self.verdicts[:, column] >= 0) & (self.label_weights[:, column] > 0))

    def slices_of(self, label: str) -> dict[str, NDArray[np.object_]]:
        """The segments of the rows that can say something about a label."""
        return {name: values[self.known(label)] for name, values in self.slices.items()}

    def sample(self, label: str, scores: Floats) -> Sample:
        """Scores beside known verdicts of one label."""
        rows, column = self.known(label), self.labels.index(label)
        return Sample(
            scores=scores[rows, column],
            labels=self.verdicts[rows, column] == 1,
            weights=self.label_weights[rows, column],
            clusters=self.entities[rows],
        )


def read(run_dir: Path, spec: DetectorSpec) -> Predictions:
    """Read RUN_DIR/predictions.parquet; a column that it lacks is looked up in RUN_DIR/training_set.parquet."""
    training_set = run_dir / "training_set.parquet"
    return _of(_complete(pq.read_table(run_dir / "predictions.parquet"), training_set, spec), spec, training_set)


def read_trained_on(run_dir: Path, spec: DetectorSpec) -> Predictions:
    """The rows that were trained on, which nothing is predicted for: their logits are NaN."""
    path = run_dir / "training_set.parquet"
    names = [name for name in ("event_id", "split", *spec.labels, *_facts(spec)) if name in pq.read_schema(path).names]
    rows = read_kept(path, columns=names)
    return _of(rows.filter(pc.equal(rows["split"], "train")), spec, path)


def _of(table: pa.Table, spec: DetectorSpec, training_set: Path) -> Predictions:
    names = _slice_names(table, spec)
    thirds = _thirds(training_set, [name for name in names if is_number(table[name].type)])
    nothing = pa.chunked_array([pa.nulls(len(table), pa.float32())])
    columns = {f"logit_{label}": nothing for label in spec.labels}
    columns |= {name: table[name] for name in table.column_names}
    return Predictions(
        labels=spec.labels,
        event_ids=_objects(table["event_id"]),
        splits=_objects(table["split"]),
        event_us=_integers(table["event_us"], null=0),
        logits=np.column_stack([columns[f"logit_{label}"].to_numpy() for label in spec.labels]).astype(np.float32),
        verdicts=np.column_stack([_integers(table[label], null=-1) for label in spec.labels]).astype(np.int8),
        weights=_weights(table, SAMPLED),
        label_weights=np.column_stack([_weights(table, _own_column(name, table.column_names)) for name in spec.labels]),
        entities=_entities(table),
        cards=_objects(table[_first_filled(table, _CARD_COLUMNS) or "event_id"]),
        slices={name: _slice_values(table[name], thirds.get(name)) for name in names},
        first_logits=_logits(columns, "first_logit", spec.labels),
    )


def _logits(columns: dict[str, pa.ChunkedArray], prefix: str, labels: list[str]) -> Floats | None:
    names = [f"{prefix}_{label}" for label in labels]
    return (
        np.column_stack([columns[name].to_numpy() for name in names]).astype(np.float32)
        if names[0] in columns
        else None
    )


def _complete(table: pa.Table, training_set: Path, spec: DetectorSpec) -> pa.Table:
    """Add the columns of the training set that evaluation reads, by event; of a text its length and script alone."""
    known = pq.read_schema(training_set).names
    missing = [name for name in _facts(spec) if name in known and name not in table.column_names]
    texts = [spec.text] if spec.text in known else []
    facts = pq.read_table(training_set, columns=["event_id", *missing, *texts])
    rows = pc.index_in(table["event_id"], value_set=facts["event_id"].combine_chunks())
    if rows.null_count:
        raise ValueError(f"predictions.parquet has {rows.null_count} event_id that training_set.parquet lacks")
    for name in missing:
        table = table.append_column(name, facts[name].take(rows))
    for text in texts:
        for name, values in text_slices.slices(facts[text].take(rows)).items():
            table = table.append_column(name, values)
    return table


def _facts(spec: DetectorSpec) -> list[str]:
    own = [f"{SAMPLED}_{label}" for label in spec.labels]
    return list(dict.fromkeys(("event_us", SAMPLED, *own, *_ENTITY_COLUMNS, *_ALWAYS_SLICED, *spec.slices)))


def _own_column(label: str, names: Sequence[str]) -> str:
    """Where a table says with which probability the verdicts of a label were drawn: like the event, if it does not."""
    own = f"{SAMPLED}_{label}"
    return own if own in names else SAMPLED


def _weights(table: pa.Table, name: str) -> Floats:
    if name not in table.column_names:
        return np.ones(len(table))
    probabilities = np.nan_to_num(table[name].to_numpy().astype(np.float64), nan=0.0)
    if probabilities.min(initial=0) < 0 or probabilities.max(initial=0) > 1:
        raise ValueError(f"{name} spans [{probabilities.min()}, {probabilities.max()}]; it must be in [0, 1]")
    return np.divide(1.0, probabilities, out=np.zeros(len(table)), where=probabilities > 0)


def _entities(table: pa.Table) -> NDArray[np.int64]:
    """Number the entities; a row of no entity is an entity of its own."""
    name = _first_filled(table, _ENTITY_COLUMNS)
    if name is None:
        return np.arange(len(table))
    numbers = _integers(pc.dictionary_encode(table[name].combine_chunks()).indices, null=-1)
    is_alone = numbers < 0
    numbers[is_alone] = numbers.max(initial=-1) + 1 + np.arange(is_alone.sum())
    return numbers


def _first_filled(table: pa.Table, names: tuple[str, ...]) -> str | None:
    return next((n for n in names if n in table.column_names and table[n].null_count < len(table)), None)


def _slice_names(table: pa.Table, spec: DetectorSpec) -> list[str]:
    return [name for name in dict.fromkeys((*spec.slices, *_ALWAYS_SLICED)) if name in table.column_names]


def _slice_values(column: pa.ChunkedArray, thirds: Floats | None) -> NDArray[np.object_]:
    """The value as a word; a number becomes the third in which it would lie among the rows that are trained on."""
    if thirds is None:
        return _objects(pc.fill_null(pc.cast(column, pa.string()), "unknown"))
    values = column.to_numpy().astype(np.float64)
    names = np.array(["low", "middle", "high", "unknown"], dtype=object)
    return names[np.where(np.isnan(values), 3, np.searchsorted(thirds, values))]


def _thirds(training_set: Path, names: list[str]) -> dict[str, Floats]:
    """Where the thirds of each column's values end in the rows that are trained on: one cut for all rows of a run."""
    table = pq.read_table(training_set, columns=[*names, "split"])
    rows = table.filter(pc.equal(table["split"], "train"))
    known = {name: rows[name].to_numpy().astype(np.float64) for name in names}
    return {name: _quantiles(values[~np.isnan(values)]) for name, values in known.items()}


def _quantiles(known: Floats) -> Floats:
    return np.quantile(known, [1 / 3, 2 / 3]) if len(known) else np.zeros(2)


def _objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.array(column.to_pylist(), dtype=object)


def _integers(column: pa.ChunkedArray | pa.Array, *, null: int) -> NDArray[np.int64]:
    return np.array(pc.fill_null(column.cast(pa.int64()), null)).astype(np.int64)
