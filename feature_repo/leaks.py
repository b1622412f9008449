"""Finds what a training set may not know: the future, verdicts before their time, enforcement, and the answer itself.

Each detector returns the columns at fault and why. Thresholds are set so that no clean set of ours raises an alarm; a
feature that is honestly this good is worth a person's look before anything is trained on it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from feature_repo.compute import features_at
from feature_repo.lake import Lake
from feature_repo.tables import EVENT_TABLES
from feature_repo.training_set import sampled_as
from feature_repo.view import Feature, View
from feature_repo.windows import SERVICES, VIEWS

Kind = Literal["enforcement", "future", "early label", "alone", "skew", "split"]
MIN_OF_EACH = 20  # positives and negatives, below which a column's power is not judged
ALONE = 0.99  # AUC of one column
ENFORCED_SHARE, ENFORCED_COVER = 0.95, 0.5  # of the rows (not) filled that are positive; of the positives among them
MAX_SKEW = 0.01  # of the cells: an event that overtook another one is no bug
NUM_ASKED = 400  # rows whose features are computed again
_BOOKKEEPING = {
    "event_id",
    "event_us",
    "arrived_us",
    "known_us",
    "sampling_probability",
    "split",
    "entity_seen",
    "text",
}
_SQL = {"int": "BIGINT", "float": "DOUBLE", "str": "VARCHAR"}
_ARROW = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
_IDS = {"account_id", "ip", "card_id", "merchant_id", "device_id"}  # judged by whether they are there, not by value


@dataclass(frozen=True)
class Leak:
    """What a column knows that it may not."""

    kind: Kind
    column: str
    why: str

    def __str__(self) -> str:
        return f"{self.column}: {self.kind}: {self.why}"


def find(lake: Lake, training_set: Path) -> list[Leak]:
    """Every leak of the training set in a folder, by `data.parquet`, `manifest.json` and the lake it was made of."""
    manifest = json.loads((training_set / "manifest.json").read_text(encoding="utf-8"))
    with lake.connect() as connection:
        connection.read_parquet(str(training_set / "data.parquet")).create_view("rows")
        known = {*_BOOKKEEPING, *manifest["labels"], *map(sampled_as, manifest["labels"])}
        columns = [c for c in connection.table("rows").columns if c not in known]
        statistical = [leak for label in manifest["labels"] for leak in telling(connection, columns, label)]
        timely = [*early_labels(connection, manifest["cutoff_us"]), *mixed_splits(connection)]
        skew = list(skewed(connection, manifest["events"], manifest["feature_service"]))
    return [*timely, *recomputed(lake, training_set / "data.parquet", manifest), *skew, *statistical]


def telling(connection: duckdb.DuckDBPyConnection, columns: Sequence[str], label: str) -> Iterator[Leak]:
    """Columns of `rows` that give a label away alone: by being filled or empty, or by their value."""
    counted = f'SELECT count(*) FILTER ("{label}" = 1), count(*) FILTER ("{label}" = 0) FROM rows'  # noqa: S608
    [(num_positive, num_negative)] = connection.execute(counted).fetchall()
    if min(num_positive, num_negative) < MIN_OF_EACH:
        return
    for column in columns:
        if why := _enforced(connection, column, label, num_positive):
            yield Leak("enforcement", column, why)
        elif column not in _IDS and (auc := _auc(connection, column, label)) >= ALONE:
            yield Leak("alone", column, f"tells {label} with an AUC of {auc:.3f} and nothing else")


def _enforced(connection: duckdb.DuckDBPyConnection, column: str, label: str, num_positive: int) -> str | None:
    """Why a column exists, or is gone, only because somebody acted on the rows that violate."""
    query = f"""SELECT "{column}" IS NULL, count(*) FILTER ("{label}" = 1), count(*) FROM rows
                WHERE "{label}" IS NOT NULL GROUP BY ALL"""  # noqa: S608
    groups = connection.execute(query).fetchall()
    if len(groups) < 2:
        return None
    for is_null, positive, total in groups:
        if positive / total >= ENFORCED_SHARE and positive >= ENFORCED_COVER * num_positive:
            return f"{'empty' if is_null else 'filled'} in {total:,} rows, of which {positive:,} are {label}"
    return None


def _auc(connection: duckdb.DuckDBPyConnection, column: str, label: str) -> float:
    """The area under the curve of one column: a number in its better direction, a text by the rate of its value.

    That rate leaves a row's own label out, as it would else be the answer where a value is rare; a value that occurs
    once says nothing, and stands for the rate of all rows.
    """
    kind = str(dict(zip(*(connection.table("rows").columns, connection.table("rows").types), strict=True))[column])
    others = f'(sum("{label}") OVER same - "{label}") / nullif(count(*) OVER same - 1, 0)'
    value = f'coalesce({others}, avg("{label}") OVER ())' if kind == "VARCHAR" else f'"{column}"'
    query = f"""
        WITH valued AS (SELECT "{label}" AS label, CAST({value} AS DOUBLE) AS value FROM rows
                        WHERE "{label}" IS NOT NULL AND "{column}" IS NOT NULL
                        WINDOW same AS (PARTITION BY "{column}")),
        ranked AS (SELECT label, rank() OVER (ORDER BY value) + (count(*) OVER (PARTITION BY value) - 1) / 2.0 AS place
                   FROM valued)
        SELECT sum(place) FILTER (label = 1), count(*) FILTER (label = 1), count(*) FILTER (label = 0) FROM ranked
    """  # noqa: S608
    [(places, positive, negative)] = connection.execute(query).fetchall()
    if min(positive, negative) < MIN_OF_EACH:
        return 0.5
    auc = (places - positive * (positive + 1) / 2) / (positive * negative)
    return float(auc if kind == "VARCHAR" else max(auc, 1 - auc))


def early_labels(connection: duckdb.DuckDBPyConnection, cutoff_us: int) -> Iterator[Leak]:
    """Verdicts in `rows` that nobody knew at the moment for which the set was made, or before their own event."""
    query = "SELECT count(*) FROM rows WHERE known_us > ? OR known_us < event_us"
    [(num_early,)] = connection.execute(query, [cutoff_us]).fetchall()
    if num_early:
        yield Leak("early label", "known_us", f"{num_early:,} verdicts became known after the set's cutoff")


def mixed_splits(connection: duckdb.DuckDBPyConnection) -> Iterator[Leak]:
    """Events in two splits, accounts called unseen that were trained on, and training on what is later than the test.

    Splits that a publisher froze need not be in the order of time; those made here are.
    """
    [(num_twice, num_seen)] = connection.execute("""
        SELECT (SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY event_id HAVING count(DISTINCT split) > 1)),
               (SELECT count(*) FROM rows WHERE entity_seen = 'unseen'
                AND account_id IN (SELECT account_id FROM rows WHERE split = 'train'))
    """).fetchall()
    if num_twice:
        yield Leak("split", "event_id", f"{num_twice:,} events are in more than one split")
    if num_seen:
        yield Leak("split", "account_id", f"{num_seen:,} rows are called unseen, though their account is trained on")
    [(first_tested, last_trained)] = connection.execute("""
        SELECT quantile_disc(event_us, 0.05) FILTER (split = 'test'),
               quantile_disc(event_us, 0.95) FILTER (split = 'train')
        FROM rows WHERE event_id NOT IN (SELECT event_id FROM labels WHERE split IS NOT NULL)
    """).fetchall()
    if first_tested is not None and last_trained is not None and last_trained > first_tested:
        yield Leak("split", "event_us", "training rows lie later than rows of the test")


def recomputed(lake: Lake, data: Path, manifest: Mapping[str, Any]) -> list[Leak]:
    """Features of some rows that are not what the lake knew strictly before their event."""
    own = EVENT_TABLES[manifest["events"]].columns
    leaks = []
    for view in (VIEWS[name] for name in SERVICES[manifest["feature_service"]].views):
        names = [f.name for f in view.features if f.name not in own]
        rows = _asked(data, view, names)
        known = features_at(lake, view, [(row[view.entity], row["event_us"]) for row in rows]) if rows else []
        for name in names:
            wrong = [
                (row["event_id"], row[name], then[name])
                for row, then in zip(rows, known, strict=True)
                if not is_same(row[name], then[name])
            ]
            if wrong:
                leaks.append(_from_later(view, name, wrong, len(rows)))
    return leaks


def _asked(data: Path, view: View, names: Sequence[str]) -> list[dict[str, Any]]:
    """The same rows each time."""
    chosen = ", ".join(f'"{name}"' for name in ["event_id", "event_us", view.entity, *names])
    query = f"""SELECT {chosen} FROM read_parquet(?) WHERE {view.entity} IS NOT NULL
                ORDER BY md5_number_lower(event_id) LIMIT {NUM_ASKED}"""  # noqa: S608
    with duckdb.connect() as connection:
        return connection.sql(query, params=[str(data)]).to_arrow_table().to_pylist()


def _from_later(view: View, name: str, wrong: Sequence[tuple[str, Any, Any]], num_rows: int) -> Leak:
    kind: Kind = "early label" if view.is_of_verdicts else "future"
    facts = "verdicts that nobody knew yet" if kind == "early label" else "what happened or arrived later"
    event_id, is_now, was = wrong[0]
    why = f"{len(wrong)} of {num_rows} rows hold {facts}, such as event {event_id}: {_shown(is_now)}, not {_shown(was)}"
    return Leak(kind, name, why)


def skewed(connection: duckdb.DuckDBPyConnection, events: str, feature_service: str) -> Iterator[Leak]:
    """Features of `rows` that are not what the service logged when it first decided about the same events."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE logged AS
           SELECT event_id, at_us, json_extract(record, '$.features.values') AS known FROM decisions
           WHERE event_table = ? AND NOT degraded AND event_id IN (SELECT event_id FROM rows)""",
        [events],
    )
    columns = connection.table("rows").columns
    for feature in (f for name in SERVICES[feature_service].views for f in VIEWS[name].features):
        if feature.name in columns and (why := _skew(connection, feature)):
            yield Leak("skew", feature.name, why)


def _skew(connection: duckdb.DuckDBPyConnection, feature: Feature) -> str | None:
    """How one feature of `rows` differs from the `logged` decisions that name it, if more than a few do."""
    name, kind = feature.name, _SQL[feature.dtype]
    is_near = "abs(online - offline) <= 1e-9 * greatest(1, abs(online), abs(offline))"
    is_same = "online = offline" if kind == "VARCHAR" else is_near
    is_wrong = f"NOT coalesce({is_same}, online IS NULL AND offline IS NULL)"
    query = f"""
        WITH pairs AS (
          SELECT event_id, TRY_CAST(known ->> '$.{name}' AS {kind}) AS online, rows."{name}" AS offline
          FROM logged JOIN rows USING (event_id) WHERE json_exists(known, '$.{name}')
          QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY at_us) = 1
        )
        SELECT count(*), count(*) FILTER ({is_wrong}),
               arg_min([event_id, online::VARCHAR, offline::VARCHAR], event_id) FILTER ({is_wrong})
        FROM pairs
    """  # noqa: S608
    [(num, num_wrong, example)] = connection.execute(query).fetchall()
    if num_wrong <= MAX_SKEW * num:
        return None
    event_id, online, offline = example
    values = "" if kind == "VARCHAR" else f": {online or 'nothing'} online, {offline or 'nothing'} offline"
    return f"differs in {num_wrong:,} of {num:,} decisions, such as event {event_id}{values}"


def skew_of_day(lake: Lake, day: date, *, events: str, feature_service: str) -> list[Leak]:
    """What the service logged about the events of a day that is not what the lake knew at their moments."""
    views = [VIEWS[name] for name in SERVICES[feature_service].views]
    keys = ", ".join(sorted({view.entity for view in views}))
    with lake.connect() as connection:
        of_day = lake.select("events", events, first=day, last=day)
        asked = f"SELECT event_id, event_us, {keys} FROM ({of_day}) SEMI JOIN decisions USING (event_id)"  # noqa: S608
        rows = connection.sql(asked).to_arrow_table()
        for view in views if rows.num_rows else ():
            moments = zip(rows[view.entity].to_pylist(), rows["event_us"].to_pylist(), strict=True)
            known = features_at(lake, view, list(moments))
            for feature in view.features:
                column = pa.array([row[feature.name] for row in known], _ARROW[feature.dtype])
                rows = rows.append_column(feature.name, column)
        connection.register("rows", rows)
        return list(skewed(connection, events, feature_service))


def _shown(value: Any) -> str:
    """A number, or that there is none; never a text, which may be somebody's."""
    return "a text" if isinstance(value, str) else "nothing" if value is None else f"{value:g}"


def is_same(one: Any, other: Any) -> bool:
    """Whether two cells are equal; a number may have been stored as another type."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-9 * max(1.0, abs(one), abs(other))
    return bool(one == other)
