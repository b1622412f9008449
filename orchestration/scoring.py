"""Scores a file of events with a release: one probability column per label, the flagged labels and the action."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.compute import features_at
from feature_repo.lake import Lake
from feature_repo.tables import EVENT_TABLES
from feature_repo.windows import SERVICES, VIEWS
from orchestration.approvals import Approvals
from orchestration.settings import Settings
from serving.bundle import Bundle, verify
from serving.cuts import Cut
from serving.decide import decide
from serving.release import read_policy, read_spec
from training import cascade
from training.detector import DetectorSpec
from training.policy import Policy
from training.reports import Report

ROWS = 50_000  # in memory at once, and between two reports


class NothingDeployed(LookupError):
    """No release of the detector may be served; name one."""


def score_file(
    settings: Settings,
    detector: str,
    source: Path,
    *,
    output: Path,
    prefix: str | None,
    report: Report = lambda *_: None,
) -> int:
    """Write the rows of a Parquet file with their scores; returns how many, and reports how many so far, of how many.

    Columns that the spec reads and the file does not hold are computed from the lake, as known at each row's
    `event_us`.
    """
    desk = Approvals(settings)
    release, policy = _chosen(desk, detector, prefix)
    spec, scorer = read_spec(release), cascade.load(verify(release.path, release.digest).path)
    thresholds = json.loads((release.path / "thresholds.json").read_text(encoding="utf-8"))
    cuts = {label: Cut.of(thresholds[label]) for label in spec.labels}

    def scored(batch: pa.RecordBatch) -> pa.Table:
        rows = with_features(settings.lake, spec, pa.Table.from_batches([batch])) if batch.num_rows else []
        scores = scorer.score(rows) if rows else np.empty((0, len(cuts)), np.float32)
        return _scored(batch, rows, scores, cuts=cuts, policy=policy)

    return _write(pq.ParquetFile(source), output, scored=scored, report=report)


def with_features(lake: Lake, spec: DetectorSpec, events: pa.Table) -> list[Mapping[str, Any]]:
    """Events as rows, completed by what the spec reads or promises by, of its service, and the events do not hold."""
    rows = events.to_pylist()
    segments = {promise.per for promise in spec.promises.values() if promise.per is not None}
    wanted = (
        {*spec.numbers, *spec.categories, *segments} - set(events.column_names) - set(EVENT_TABLES[spec.events].columns)
    )
    for view in (VIEWS[name] for name in SERVICES[spec.feature_service].views):
        if not wanted & {feature.name for feature in view.features}:
            continue
        if "event_us" not in events.column_names:
            raise ValueError(f"column event_us is missing; without it {sorted(wanted)} cannot be computed")
        known = features_at(lake, view, [(row.get(view.entity), row["event_us"]) for row in rows])
        rows = [{**features, **row} for row, features in zip(rows, known, strict=True)]
    return rows


def _write(file: pq.ParquetFile, output: Path, *, scored: Callable[[pa.RecordBatch], pa.Table], report: Report) -> int:
    """Write what was scored in one rename, also where a file has no rows; returns how many it has."""
    num_rows, partial = 0, output.with_name(f".{output.name}.partial")
    schema = scored(pa.RecordBatch.from_pylist([], schema=file.schema_arrow)).schema
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in file.iter_batches(ROWS):
            writer.write_table(scored(batch))
            num_rows += batch.num_rows
            report(num_rows, file.metadata.num_rows)
    partial.replace(output)
    return num_rows


def _chosen(desk: Approvals, detector: str, prefix: str | None) -> tuple[Bundle, Policy]:
    if prefix is not None:
        release = desk.release_of(detector, prefix)
        return release, read_policy(desk.newest_policy(read_spec(release).policy))
    deployed = desk.servable(detector)
    if deployed is None:
        raise NothingDeployed(f"no release of {detector} is deployed; name one with --release")
    release = verify(desk.shelves.release(detector, deployed.release), deployed.release)
    return release, read_policy(verify(desk.shelves.policy(deployed.policy), deployed.policy))


def _scored(
    batch: pa.RecordBatch,
    rows: Sequence[Mapping[str, Any]],
    scores: np.ndarray,
    *,
    cuts: Mapping[str, Cut],
    policy: Policy,
) -> pa.Table:
    """The batch with scores [N, L], labels in the order of `cuts`, and with what the service would decide."""
    review_from = {label: cut.review_from for label, cut in cuts.items()}
    decisions = [
        decide(
            dict(zip(cuts, map(float, found), strict=True)),
            {label: cut.at(row) for label, cut in cuts.items()},
            policy=policy,
            review_from=review_from,
        )
        for row, found in zip(rows, scores, strict=True)
    ]
    table = pa.Table.from_batches([batch])
    for at, label in enumerate(cuts):
        table = _with(table, f"p_{label}", pa.array(scores[:, at], pa.float32()))
    table = _with(table, "flagged", pa.array([list(d.labels) for d in decisions], pa.list_(pa.string())))
    return _with(table, "action", pa.array([str(d.action) for d in decisions], pa.string()))


def _with(table: pa.Table, name: str, column: Sequence[Any]) -> pa.Table:
    return table.drop_columns([name] if name in table.column_names else []).append_column(name, column)
