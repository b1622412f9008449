"""Turns a training set into batches whose content depends on the seed alone, on any number of devices."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from training.attacks.augment import augment
from training.detector import DetectorSpec
from training.encoder import Doubles, Encoded, Encoder, Floats
from training.fit_config import FitConfig
from training.near_duplicates import read_kept
from training.packed import add_windows
from training.reader import PIECES
from training.reports import Report
from training.segments import check_promises

if TYPE_CHECKING:
    from training.pretrained import Pretrained

UNKNOWN = -1.0  # a label nobody knows: it takes no part in loss and metrics
EVALUATED_ROWS = 4096  # rows of a batch that is not trained on

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Examples:
    """Encoded rows with `labels` [N, L] (1, 0 or UNKNOWN) and the `weights` [N] they have in the loss.

    For a head on vectors a row's weight is multiplied by what its source asks for, `source_weights` [N].
    """

    inputs: Encoded
    labels: Floats
    weights: Floats
    source_weights: Floats

    @classmethod
    def of(cls, table: pa.Table, spec: DetectorSpec, *, encoder: Encoder) -> "Examples":
        """Encode a table that has the detector's label columns."""
        labels = [table[label].cast(pa.float32()).fill_null(UNKNOWN).to_numpy() for label in spec.labels]
        weights = (_weights(table, spec.fit.max_weight), _source_weights(table, spec.fit.source_power))
        return cls(encoder.encode(table), np.stack(labels, axis=1), *weights)

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Tensors of the given rows: what the network reads, labels and weights."""
        return tensors(self.inputs.take(rows)) | {
            "labels_BL": torch.from_numpy(self.labels[rows]),
            "weights_B": torch.from_numpy(self.weights[rows]),
            "source_weights_B": torch.from_numpy(self.source_weights[rows]),
        }


def tensors(inputs: Encoded) -> Batch:
    """What a network reads: dense columns by record; owners, bags and vectors by passage."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"dense_BD": inputs.dense, "owners_P": inputs.owners}
    for name, bags in inputs.bags.items():
        arrays |= {name: bags.ids, f"{name}_offsets_P": bags.bounds[:-1].astype(np.int32)}
    if inputs.vectors is not None:
        arrays["vectors_PE"] = inputs.vectors
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _weights(table: pa.Table, limit: float) -> Floats:
    """Inverse sampling probabilities up to a limit, so that a few rare draws do not own the loss.

    1 for a row that was not drawn with a known probability: it stands for itself alone.
    """
    probabilities = table["sampling_probability"].fill_null(0.0).to_numpy()
    known = np.where(probabilities > 0, probabilities, 1.0)
    return (1 / np.maximum(known, 1 / limit)).astype(np.float32)


def _source_weights(table: pa.Table, power: float) -> Floats:
    """By which a source of n rows weighs as much as n to the power; 1 on the mean of rows."""
    if power == 1:
        return np.ones(len(table), np.float32)
    if "source" not in table.column_names:
        raise ValueError(f"fit.source_power is {power}; the training set has no column 'source' to weigh by")
    sources = pc.fill_null(pc.cast(table["source"], pa.string()), "").to_numpy()
    _, of_row, sizes = np.unique(sources.astype(str), return_inverse=True, return_counts=True)
    shares = sizes[of_row] ** (power - 1)
    return (shares / shares.mean()).astype(np.float32)


@dataclass(frozen=True)
class EpochRows:
    """Which rows each epoch shows: those with a violation and, of the others, as many as the fit allows.

    Each epoch draws the others anew, so that in time all are seen.
    """

    positives: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]
    num_negatives: int

    @classmethod
    def of(cls, labels: Floats, per_positive: int | None) -> "EpochRows":
        """Part the rows of `labels` [N, L]; without a limit, or without a violation, all are shown."""
        is_positive = (labels == 1).any(axis=1)
        positives, negatives = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
        most = per_positive * len(positives) if per_positive else 0
        return cls(positives, negatives, min(most or len(negatives), len(negatives)))

    @property
    def share(self) -> float:
        """The share of the rows without a violation that one epoch draws."""
        return self.num_negatives / len(self.negatives) if len(self.negatives) else 1.0

    def __len__(self) -> int:
        return len(self.positives) + self.num_negatives

    def draw(self, *seed: int) -> npt.NDArray[np.int64]:
        """The rows of an epoch in their order, a function of the seed alone."""
        drawn = np.random.default_rng([*seed, 1]).choice(self.negatives, self.num_negatives, replace=False)
        return np.random.default_rng(seed).permutation(np.sort(np.r_[self.positives, drawn]))


@dataclass(frozen=True)
class InOrder:
    """Batches of every `world`-th row, in their order."""

    examples: Examples
    rank: int = 0
    world: int = 1
    most: int = EVALUATED_ROWS

    def __len__(self) -> int:
        return math.ceil(len(range(self.rank, len(self.examples.inputs), self.world)) / self.most)

    def __iter__(self) -> Iterator[Batch]:
        rows = np.arange(self.rank, len(self.examples.inputs), self.world)
        return (self.examples.batch(rows[at : at + self.most]) for at in range(0, len(rows), self.most))


class GlobalBatchLoader:
    """Yields this rank's slice of each global batch, cut into micro-batches; the order depends on (seed, epoch) only.

    Lightning stores and restores it, as it has `state_dict` and `load_state_dict`.
    """

    def __init__(self, examples: Examples, rows: EpochRows, *, shape: "BatchShape", seed: int) -> None:
        self.examples, self.rows, self.shape, self.seed = examples, rows, shape, seed
        self.epoch = self.position = 0  # position: micro-batches already taken from this epoch

    def __len__(self) -> int:
        return len(self.rows) // self.shape.global_batch * self.shape.num_micro_batches

    def state_dict(self) -> dict[str, int]:
        """Where the next batch comes from."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a stored place."""
        self.epoch, self.position = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[Batch]:
        if self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        order = self.rows.draw(self.seed, self.epoch)
        with ThreadPoolExecutor(1) as pool:  # the next batch is laid out while a step is taken
            ahead = pool.submit(self._batch, order, self.position)
            while self.position < len(self):
                batch = ahead.result()
                self.position += 1
                ahead = pool.submit(self._batch, order, self.position)
                yield batch

    def _batch(self, order: npt.NDArray[np.int64], position: int) -> Batch:
        return self.examples.batch(order[self.shape.slice(position)])


@dataclass(frozen=True)
class BatchShape:
    """How one global batch is shared by `world` ranks, each of which takes it in `num_micro_batches` parts."""

    global_batch: int
    rank: int = 0
    world: int = 1
    num_micro_batches: int = 1

    def slice(self, position: int) -> slice:
        """The rows of this rank's micro-batch at a position of the epoch."""
        batch, part = divmod(position, self.num_micro_batches)
        share = self.global_batch // self.world
        size = share // self.num_micro_batches
        first = batch * self.global_batch + self.rank * share + part * size
        return slice(first, first + size)


def pretrained_of(config: FitConfig, cache: Path) -> "Pretrained | None":
    """The pretrained encoder that a network takes something from; `transformers` is imported for no other network."""
    if set(config.readers) <= {"ngram"}:
        return None
    from training.pretrained import Pretrained

    return Pretrained(config.pretrained, cache)


def with_suites(table: pa.Table, spec: DetectorSpec) -> pa.Table:
    """The table and the texts of the suites that the fit names, benign for every label, and their contrasts."""
    if not spec.fit.benign_suites:
        return table
    from training.benign import read_contrasts, read_suite

    parts = [table]
    for name in spec.fit.benign_suites:
        contrasts, violates = read_contrasts(name)
        shown = [(read_suite(name, None), dict.fromkeys(spec.labels, 0)), (contrasts, dict.fromkeys(violates, 1))]
        for texts, verdicts in shown:
            known = {label: pa.array([verdicts.get(label)] * len(texts), pa.int8()) for label in spec.labels}
            parts.append(pa.table({str(spec.text): pa.array(texts, pa.string()), **known}))
    return pa.concat_tables(parts, promote_options="permissive")


class DetectorData(L.LightningDataModule):
    """The training set of a run: encoder fitted on the training split, batches for training and validation."""

    def __init__(
        self,
        path: Path,
        spec: DetectorSpec,
        *,
        cache: Path,
        world: int = 1,
        num_micro_batches: int = 1,
        report: Report = lambda *_: None,
    ) -> None:
        """`report` is told how many passages a pretrained encoder has read, of how many.

        A global batch, which is as large for any of them, is cut into `num_micro_batches` or the next number of equal
        parts, and what is evaluated at once into as many.
        """
        super().__init__()
        self.spec, self.cache, self.world, self.report = spec, cache, world, report
        self.table = read_kept(path)
        check_promises(spec, self.table.schema)
        train = self.split("train")
        self.pretrained = pretrained_of(spec.fit, cache)
        self.encoder = Encoder.fit(train, spec, tokenizer=self.pretrained.tokenizer if self.pretrained else None)
        examples = self.examples(with_suites(augment(train, spec), spec))
        self.rows = EpochRows.of(examples.labels, spec.fit.negatives_per_positive)
        weights = examples.weights.copy()
        weights[self.rows.negatives] /= self.rows.share  # each that is drawn stands for those that are not
        self.train = replace(examples, weights=weights)
        self.validation = self.examples(self.split("validation"))
        share = self.global_batch // world
        self.num_micro_batches = next(n for n in range(min(num_micro_batches, share), share + 1) if share % n == 0)
        self.evaluated_rows = max(1, EVALUATED_ROWS // num_micro_batches)

    def split(self, *names: str) -> pa.Table:
        """The rows of some splits; a split that has none is refused."""
        rows = self.table.filter(pc.is_in(self.table["split"], pa.array(names)))
        if not rows.num_rows:
            raise ValueError(f"the training set of {self.spec.name!r} has no row with split {' or '.join(names)}")
        return rows

    def examples(self, table: pa.Table) -> Examples:
        """Encode some rows of the table; vectors that a run has computed before are read from the cache."""
        examples = Examples.of(table, self.spec, encoder=self.encoder)
        if self.pretrained is None or not self.spec.fit.has_frozen_encoder:
            return examples
        vectors = self.pretrained.vectors(examples.inputs.bags[PIECES], report=self.report)
        return replace(examples, inputs=replace(examples.inputs, vectors=vectors))

    @property
    def global_batch(self) -> int:
        """As configured, or all rows of a smaller training set, in a number that divides over devices."""
        return max(self.world, min(self.spec.fit.global_batch_size, len(self.rows)) // self.world * self.world)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole fit."""
        return len(self.rows) // self.global_batch * self.spec.fit.max_epochs

    @property
    def shares(self) -> Doubles:
        """Of each label, the share of an epoch's rows with a verdict that violate it [L]; never quite 0 or 1."""
        known_L, violated_L = self._seen()
        return (violated_L + 0.5) / (known_L + 1)

    @property
    def curvature(self) -> list[float]:
        """Of each label p (1 - p), where p of the rows violate it: the mean over an epoch, 0 for unknown verdicts."""
        known_L, violated_L = self._seen()
        shares_L = violated_L / np.maximum(known_L, 1e-9)
        return (known_L * shares_L * (1 - shares_L) / len(self.rows)).tolist()

    def _seen(self) -> tuple[Doubles, Doubles]:
        """Of each label the weight of an epoch's rows with a verdict, and of those that violate it [L]."""
        drawn_N = self.train.weights.astype(np.float64)
        drawn_N[self.rows.negatives] *= self.rows.share
        return drawn_N @ (self.train.labels != UNKNOWN), drawn_N @ (self.train.labels == 1)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Lay out what the next step reads, in memory that a GPU fetches by itself while this step goes on."""
        if self.spec.fit.has_tuned_encoder:
            batch = add_windows(batch)
        return {name: one.pin_memory() for name, one in batch.items()} if torch.cuda.is_available() else batch

    def train_dataloader(self) -> GlobalBatchLoader:
        """What of every global batch falls to this rank."""
        trainer = self.trainer
        shape = BatchShape(self.global_batch, trainer.global_rank, trainer.world_size, self.num_micro_batches)
        return GlobalBatchLoader(self.train, self.rows, shape=shape, seed=self.spec.fit.seed)

    def val_dataloader(self) -> "InOrder":
        """The validation rows that fall to this rank."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return InOrder(self.validation, rank=rank, world=world, most=self.evaluated_rows)
