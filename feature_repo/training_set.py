"""A training set: the verdicts known by a moment, wide, joined to the features of each event as they were then."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from feast import FeatureStore

from feature_repo.lake import Lake, literal
from feature_repo.splits import SPLIT_SQL
from feature_repo.tables import EVENT_TABLES
from feature_repo.windows import SERVICES, VIEWS

# A later verdict about a label wins; the split that a publisher gave it and the first draw hold for all of them.
_WIDE = """
    WITH verdicts AS (
        SELECT * FROM labels WHERE event_table = '{events}' AND known_us <= {cutoff_us} AND label IN ({names})
        QUALIFY count(*) FILTER (split = 'unused') OVER (PARTITION BY event_id, label) = 0
    )
    SELECT event_id, max(known_us) AS known_us,
           arg_min(split, list_position(['test', 'calibration', 'validation', 'train'], split)) AS published_split,
           {sampled}, greatest({sampled_as}) AS sampling_probability, {columns}
    FROM verdicts GROUP BY event_id
"""


def build(
    lake: Lake,
    store: FeatureStore,
    *,
    events: str,
    labels: Sequence[str],
    feature_service: str,
    out: Path,
    cutoff_us: int | None = None,
) -> dict[str, Any]:
    """Write `out/data.parquet`, one row per event with a verdict, and `out/manifest.json`, which is returned.

    Without a cutoff everything the lake knows counts. Features are those known at the event: Feast reads the row of
    that moment, and no row that a later fact added. A label's value is that of its last verdict, its probability that
    of the first draw: who looks again, or appeals, draws nothing (0: nobody drew it). `sampling_probability` is the
    largest of an event's; a label that was drawn otherwise in some rows has a column of its own for that.
    Raises ValueError where no event has a verdict yet.
    """
    with lake.connect() as connection:
        cutoff_us = _last_known_us(connection) if cutoff_us is None else cutoff_us
        rows = _labelled_events(connection, events, labels, cutoff_us)
        if not rows.num_rows:
            raise ValueError(f"no event of {events} has a verdict on {', '.join(labels)}")
        connection.register("labelled", rows)
        connection.register("features", _features(store, rows, feature_service))
        taken = ", ".join(f'features."{name}"' for name in _feature_names(events, feature_service))
        joined = f"SELECT labelled.*, {taken} FROM labelled JOIN features USING (event_id)"  # noqa: S608
        query = SPLIT_SQL.format(rows=joined)
        out.mkdir(parents=True, exist_ok=True)
        connection.execute(f"COPY ({query}) TO {literal(str(out / 'data.parquet'))} (FORMAT parquet, COMPRESSION zstd)")
    manifest = {
        "events": events,
        "labels": list(labels),
        "feature_service": feature_service,
        "cutoff_us": cutoff_us,
        "num_rows": rows.num_rows,
        "sha256": _sha256(out / "data.parquet"),
        "partitions": _partitions(lake, [events, "labels"], SERVICES[feature_service].views),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def _last_known_us(connection: duckdb.DuckDBPyConnection) -> int:
    return int(connection.execute("SELECT coalesce(max(known_us), 0) FROM labels").fetchall()[0][0])


def _labelled_events(
    connection: duckdb.DuckDBPyConnection, events: str, labels: Sequence[str], cutoff_us: int
) -> pa.Table:
    said = "(last(value ORDER BY known_us, value) FILTER (label = '{0}'))::TINYINT AS \"{0}\""
    first = "first(sampling_probability ORDER BY sampling_probability = 0, known_us, sampling_probability DESC)"
    drawn = first + " FILTER (label = '{0}') AS \"{1}\""
    wide = _WIDE.format(
        events=events,
        cutoff_us=cutoff_us,
        names=", ".join(f"'{name}'" for name in labels),
        columns=", ".join(said.format(name) for name in labels),
        sampled=", ".join(drawn.format(name, sampled_as(name)) for name in labels),
        sampled_as=", ".join(f'"{sampled_as(name)}"' for name in labels),
    )
    query = f"SELECT e.*, w.* EXCLUDE (event_id) FROM {events} AS e JOIN ({wide}) AS w USING (event_id)"  # noqa: S608
    # Nobody can learn from an event whose content a policy did not keep.
    kept = [f"{name} IS NOT NULL" for name, column in EVENT_TABLES[events].columns.items() if column.is_forgettable]
    query += f" WHERE {' AND '.join(kept)}" if kept else ""
    rows = connection.sql(f"{query} ORDER BY event_us, event_id").to_arrow_table()
    return rows.drop_columns([sampled_as(label) for label in labels if _is_of_event(rows, label)])


def sampled_as(label: str) -> str:
    """The column that says with which probability the verdicts of a label were drawn, where not like their events."""
    return f"sampling_probability_{label}"


def _is_of_event(rows: pa.Table, label: str) -> bool:
    """Whether the verdicts of a label were drawn as the likeliest of their event's were."""
    known = rows.filter(rows[label].is_valid())
    return known[sampled_as(label)].fill_null(0).equals(known["sampling_probability"].fill_null(0))


def _features(store: FeatureStore, rows: pa.Table, feature_service: str) -> pa.Table:
    """The features of each event at its own moment, by event id."""
    keys = sorted({VIEWS[name].entity for name in SERVICES[feature_service].views})
    moments = rows.select(["event_id", *keys]).append_column(
        "event_timestamp", rows["event_us"].cast(pa.timestamp("us", tz="UTC"))
    )
    return store.get_historical_features(
        entity_df=moments.to_pandas(),
        features=store.get_feature_service(feature_service),
        filter_by_created_timestamp=True,
    ).to_arrow()


def _feature_names(events: str, feature_service: str) -> list[str]:
    """What an event says of itself stands before what was known about it: the service does the same."""
    own = EVENT_TABLES[events].columns
    views = [VIEWS[name] for name in SERVICES[feature_service].views]
    return [f.name for view in views for f in view.features if f.name not in own]


def _partitions(lake: Lake, tables: Sequence[str], views: Sequence[str]) -> dict[str, dict[str, str]]:
    """The SHA-256 of every file that was read, by table and day."""
    folders = {table: lake.folder("events", table) for table in tables}
    folders |= {view: lake.folder("features", view) for view in views}
    return {
        name: {f"{file.parent.name[4:]}/{file.name}": _sha256(file) for file in sorted(folder.glob("day=*/*.parquet"))}
        for name, folder in folders.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
