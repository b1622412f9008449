"""What must hold of an arriving batch: suites parametrized by the table contracts, evaluated by Great Expectations.

A suite speaks about a view that `validation.py` lays over the files: the table's own columns and a few derived ones
(`X_matches`, `X_is_finite`, `event_id_is_new`, `us_after_midnight`), since Great Expectations has no regular
expressions on DuckDB.
"""

from collections.abc import Collection, Iterator

from feature_repo.lake import DAY_US
from feature_repo.tables import Column, Table
from orchestration.gx import Expectation, gxe
from orchestration.usual import spread_columns

# A column may be stored narrower than its contract says; DuckDB widens it without loss.
_NARROWER = {
    "BIGINT": ("BIGINT", "INTEGER", "SMALLINT", "TINYINT"),
    "INTEGER": ("INTEGER", "SMALLINT", "TINYINT"),
    "DOUBLE": ("DOUBLE", "FLOAT"),
}
# A day may hold this many times its usual rows; labels come in waves (a chargeback wave, a review campaign).
_VOLUME = {"labels": (0.0, 20.0)}
_VOLUME_OF_EVENTS = (0.1, 5.0)
_MAX_HOURS_STALE = 8.0  # that the newest event of a day may lie earlier than usual: a feed that broke off
_MAX_MOVED = 0.6  # of the rows that may lie elsewhere than before: an attack moves a few, another unit nearly all


def columns_are_declared(table: Table) -> list[Expectation]:
    """Of the view `columns` (one row per file and column): none missing, none unknown, none mistyped."""
    accepted = {name: _NARROWER.get(c.type, (c.type,)) for name, c in table.columns.items()}
    declared = [f"{name} {type_}" for name, types in accepted.items() for type_ in types]
    return [
        gxe.ExpectColumnDistinctValuesToContainSet(column="name", value_set=list(table.columns)),
        gxe.ExpectColumnValuesToBeInSet(column="declaration", value_set=declared),
    ]


def rows_are_valid(table: Table, *, now_us: int, label_names: Collection[str] = ()) -> list[Expectation]:
    """Of the view `batch`: nulls, ranges, sets, patterns, uniqueness, the right day, nothing from the future."""
    suite = [e for name, column in table.columns.items() for e in _column(name, column)]
    suite.append(gxe.ExpectTableRowCountToBeBetween(min_value=1))
    suite.append(gxe.ExpectColumnValuesToBeBetween(column="us_after_midnight", min_value=0, max_value=DAY_US - 1))
    suite.extend(_labels(label_names, now_us) if table.name == "labels" else _events(now_us))
    return suite


def day_is_usual(table: Table) -> list[Expectation]:
    """Of the view `volumes` (one row per day): about as many rows as on the days before, and as fresh."""
    low, high = _VOLUME.get(table.name, _VOLUME_OF_EVENTS)
    volume = gxe.ExpectColumnValuesToBeBetween(column="times_usual", min_value=low, max_value=high)
    fresh = gxe.ExpectColumnValuesToBeBetween(column="hours_stale", max_value=_MAX_HOURS_STALE)
    return [volume] if table.name == "labels" else [volume, fresh]


def spread_is_usual(table: Table) -> list[Expectation]:
    """Of the table `spreads` (one row per day): values fall about as on the days before."""
    moved = [f"{name}_moved" for name in spread_columns(table)]
    return [gxe.ExpectColumnValuesToBeBetween(column=name, max_value=_MAX_MOVED) for name in moved]


def _column(name: str, column: Column) -> Iterator[Expectation]:
    if not (column.is_nullable or column.is_forgettable):
        yield gxe.ExpectColumnValuesToNotBeNull(column=name)
    if column.is_unique:
        yield gxe.ExpectColumnValuesToBeUnique(column=name)
    if column.minimum is not None or column.maximum is not None:
        yield gxe.ExpectColumnValuesToBeBetween(column=name, min_value=column.minimum, max_value=column.maximum)
    if column.type == "DOUBLE":
        yield gxe.ExpectColumnValuesToBeInSet(column=f"{name}_is_finite", value_set=[True])
    if column.values:
        yield gxe.ExpectColumnValuesToBeInSet(column=name, value_set=list(column.values))
    if column.pattern:
        yield gxe.ExpectColumnValuesToBeInSet(column=f"{name}_matches", value_set=[True])


def _events(now_us: int) -> Iterator[Expectation]:
    yield gxe.ExpectColumnValuesToBeInSet(column="event_id_is_new", value_set=[True])
    yield gxe.ExpectColumnValuesToBeBetween(column="arrived_us", max_value=now_us)
    yield gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="arrived_us", column_B="event_us", or_equal=True)


def _labels(label_names: Collection[str], now_us: int) -> Iterator[Expectation]:
    yield gxe.ExpectColumnValuesToBeInSet(column="label", value_set=sorted(label_names))
    yield gxe.ExpectColumnValuesToBeBetween(column="known_us", max_value=now_us)
    yield gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="known_us", column_B="event_us", or_equal=True)
    one_verdict = ["event_table", "event_id", "label", "known_us", "source"]
    yield gxe.ExpectCompoundColumnsToBeUnique(column_list=one_verdict)
