"""How a foreign file becomes rows of the lake: the small YAML that a person writes, and the SQL it stands for."""

import re
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from feature_repo.lake import DAY_US, literal, start_us
from feature_repo.tables import EVENT_TABLES, LABELS
from training.contract_file import read_contract
from training.policy import Contract

TRUTH_VALUES = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
_LABEL = LABELS.columns["label"].pattern or ""
HASH = "pseudonym"  # a function of the connection that reads the file: it holds the key
UNITS_US = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}


class Value(Contract):
    """Where the values of one column come from; a bare name in the YAML is short for `column`."""

    column: str | None = None
    constant: str | int | float | None = None
    characters_of: str | None = None  # a quarter of the characters of this column: an estimate of its tokens
    values: dict[str, str] = {}  # renames; a value that is not named here stays as it is
    prefix: str = ""
    default: str | None = None  # in place of null
    is_hashed: bool = False  # an id that must not be seen in the lake: the service knows it by the same hash

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        named = [origin for origin in (self.column, self.constant, self.characters_of) if origin is not None]
        if len(named) != 1:
            raise ValueError(f"a value names {len(named)} of column, constant, characters_of; it must name exactly one")
        return self

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns of the file that it reads."""
        return tuple(name for name in (self.column, self.characters_of) if name is not None)

    @property
    def sql(self) -> str:
        """An expression over the file's columns, as text."""
        if self.characters_of is not None:
            return f"CAST(ceil(length({quoted(self.characters_of)}) / 4.0) AS VARCHAR)"
        if self.column is None:
            return literal(str(self.constant))
        found = f"CAST({quoted(self.column)} AS VARCHAR)"
        if self.values:
            cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in self.values.items())
            found = f"CASE {found} {cases} ELSE {found} END"
        if self.default is not None:
            found = f"coalesce({found}, {literal(self.default)})"
        if self.is_hashed:
            found = f"{HASH}({found})"
        return f"{literal(self.prefix)} || {found}" if self.prefix else found


class Spread(Contract):
    """For files without times: every event gets a moment between two days, always the same for the same event id."""

    first: date
    last: date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"spread.last is {self.last}; it must not be before spread.first {self.first}")
        return self

    def sql(self, event_id: str) -> str:
        """Microseconds from the first 48 bits of a digest of the event id."""
        span_us = start_us(self.last) + DAY_US - start_us(self.first)
        return f"{start_us(self.first)} + CAST('0x' || substr(md5({event_id}), 1, 12) AS BIGINT) % {span_us}"


class Moment(Contract):
    """When something happened: a column and how to read it, or a spread."""

    column: str | None = None
    format: str = "timestamp"  # timestamp (ISO 8601, UTC), seconds, milliseconds, microseconds, or a strptime format
    spread: Spread | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.column is None) == (self.spread is None):
            raise ValueError("a time must name exactly one of column and spread")
        return self

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns of the file that it reads."""
        return () if self.column is None else (self.column,)

    def sql(self, event_id: str) -> str:
        """Microseconds UTC, or null where the moment cannot be read; `event_id` is the SQL of the event's id."""
        if self.spread is not None:
            return self.spread.sql(event_id)
        assert self.column is not None
        found = f"CAST({quoted(self.column)} AS VARCHAR)"
        if self.format in UNITS_US:
            # 25 digits: more than a BIGINT holds, and few enough for the product to fit in 38.
            return f"TRY_CAST(TRY_CAST({found} AS DECIMAL(25, 6)) * {UNITS_US[self.format]} AS BIGINT)"
        if self.format == "timestamp":
            return f"epoch_us(TRY_CAST({found} AS TIMESTAMPTZ))"
        return f"epoch_us(try_strptime({found}, {literal(self.format)}))"


class LabelValue(Contract):
    """Where a label comes from; null is "not known" and makes no row. A bare name is short for `column`."""

    column: str
    values: dict[str, int | None] = {}

    @field_validator("values")
    @classmethod
    def _binary(cls, values: dict[str, int | None]) -> dict[str, int | None]:
        for name, value in values.items():
            if value not in (0, 1, None):
                raise ValueError(f"values.{name} is {value}; it must be 0, 1 or null")
        return values

    @property
    def accepted(self) -> dict[str, int | None]:
        """The texts that are understood."""
        return self.values or dict(TRUTH_VALUES)

    @property
    def sql(self) -> str:
        """1, 0, null where not known, or -1 where the value is none of those named."""
        found = f"lower(CAST({quoted(self.column)} AS VARCHAR))"
        cases = " ".join(
            f"WHEN {literal(old.lower())} THEN {'NULL' if new is None else new}" for old, new in self.accepted.items()
        )
        return f"CASE WHEN {quoted(self.column)} IS NULL THEN NULL ELSE CASE {found} {cases} ELSE -1 END END"


SplitName = Literal["train", "validation", "calibration", "test", "unused"]


class Split(Contract):
    """The publisher's split; each of its names becomes one of the lake's, or is dealt out evenly between several."""

    column: str
    values: dict[str, SplitName | list[SplitName]]

    def sql(self, event_id: str) -> str:
        """The lake's split, null where the file has none, or '?' where its name is not mapped."""
        found = f"CAST({quoted(self.column)} AS VARCHAR)"
        cases = " ".join(f"WHEN {literal(old)} THEN {_dealt(new, event_id)}" for old, new in self.values.items())
        return f"CASE WHEN {found} IS NULL THEN NULL ELSE CASE {found} {cases} ELSE '?' END END"


def _dealt(split: SplitName | list[SplitName], event_id: str) -> str:
    """One of several splits by a digest of the event id: the same for every import."""
    if isinstance(split, str):
        return literal(split)
    names = ", ".join(literal(name) for name in split)
    return f"([{names}])[1 + CAST(md5_number_lower({event_id}) % {len(split)} AS INTEGER)]"


class Mapping(Contract):
    """What of a file goes where. `name` is part of the names of the files that an import writes."""

    name: str
    table: Literal["requests", "payments", "accounts"]
    event_id: Value
    time: Moment
    columns: dict[str, Value] = {}
    labels: dict[str, LabelValue] = {}
    labels_known_after_days: float = 0.0
    labels_source: Literal["reviewer", "chargeback", "appeal", "import", "report"] = "import"
    sampling_probability: float = 1.0
    split: Split | None = None

    @field_validator("event_id", mode="before")
    @classmethod
    def _short_id(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @field_validator("columns", "labels", mode="before")
    @classmethod
    def _short(cls, values: Any) -> Any:
        return {k: {"column": v} if isinstance(v, str) else v for k, v in (values or {}).items()}

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        known = set(EVENT_TABLES[self.table].columns) - {"event_id", "event_us"}
        for name in self.columns:
            if name not in known:
                raise ValueError(f"columns.{name} is no column of {self.table}; it has {', '.join(sorted(known))}")
        if wrong := [name for name in self.labels if not re.fullmatch(_LABEL, name)]:
            raise ValueError(f"labels has {wrong[0]!r}; a label must match {_LABEL}")
        if self.labels_known_after_days < 0:
            raise ValueError(f"labels_known_after_days is {self.labels_known_after_days}; it must be at least 0")
        if not 0 < self.sampling_probability <= 1:
            raise ValueError(f"sampling_probability is {self.sampling_probability}; it must lie in (0, 1]")
        return self

    @property
    def hashes(self) -> bool:
        """Whether it takes a key to read the file."""
        return any(value.is_hashed for value in (self.event_id, *self.columns.values()))

    @property
    def source_columns(self) -> tuple[str, ...]:
        """All columns of the file that are read, each once."""
        names = [*self.event_id.source_columns, *self.time.source_columns]
        names += [name for value in self.columns.values() for name in value.source_columns]
        names += [label.column for label in self.labels.values()]
        return tuple(dict.fromkeys([*names, *([self.split.column] if self.split else [])]))


def load_mapping(path: Path) -> Mapping:
    """Read and check a mapping file."""
    return read_contract(path, Mapping)


def quoted(name: str) -> str:
    """A column name in SQL."""
    return '"' + name.replace('"', '""') + '"'
