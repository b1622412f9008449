"""Decides about arriving batches: a good one moves from the inbox to the events, a bad one whole into quarantine."""

import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

import duckdb

from feature_repo.lake import Lake, day_of
from feature_repo.tables import TABLES
from orchestration import batches, expectations
from orchestration.batches import Batch
from orchestration.gx_on_duckdb import Outcome, check


@dataclass(frozen=True)
class Report:
    """The verdict on one day of one table."""

    table: str
    day: date
    num_rows: int
    outcomes: tuple[Outcome, ...]
    is_standing: bool = False  # nothing new arrived: the verdict is that of an earlier run

    @property
    def refusals(self) -> tuple[Outcome, ...]:
        """The expectations that did not hold."""
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    @property
    def passed(self) -> bool:
        """Whether every expectation held."""
        return not self.refusals

    @property
    def reason(self) -> str:
        """One line that says why a batch was refused; empty for a good one."""
        return "; ".join(f"{o.column or 'batch'}: {o.expectation} ({o.num_bad} bad)" for o in self.refusals[:3])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        said = json.loads(text)
        outcomes = tuple(Outcome(**outcome | {"examples": tuple(outcome["examples"])}) for outcome in said["outcomes"])
        return cls(said["table"], date.fromisoformat(said["day"]), said["num_rows"], outcomes, said["is_standing"])

    def without(self, ids: Collection[str]) -> Self:
        """The report with other words in the place of some examples."""
        outcomes = [
            replace(outcome, examples=tuple("forgotten" if id_ in ids else id_ for id_ in outcome.examples))
            for outcome in self.outcomes
        ]
        return replace(self, outcomes=tuple(outcomes))

    def files(self) -> dict[str, str]:
        """What lies beside a refused batch."""
        return {"report.json": self.to_json(), "report.md": self.to_markdown()}

    def to_json(self) -> str:
        """The whole report, for machines."""
        return json.dumps({**asdict(self), "day": self.day.isoformat(), "passed": self.passed}, indent=2)

    def to_markdown(self) -> str:
        """The report for a person: what was expected, what was found, ids of examples, never a value or a text."""
        verdict = "accepted" if self.passed else "**refused**"
        lines = [
            f"# {self.table} of {self.day}: {verdict}",
            "",
            f"{self.num_rows:,} rows, {len(self.outcomes)} expectations, {len(self.refusals)} did not hold.",
            "",
            "| column | expectation | expected | bad | examples |",
            "|---|---|---|---:|---|",
        ]
        for o in self.refusals or self.outcomes:
            expected = o.expected.replace("|", "\\|")
            lines.append(f"| {o.column or ''} | {o.expectation} | {expected} | {o.num_bad} | {', '.join(o.examples)} |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Known:
    """What is known outside the lake when a batch is judged."""

    label_names: frozenset[str]
    now_us: int


def validate_batch(lake: Lake, table: str, day: date, *, label_names: Collection[str] = ()) -> Report:
    """Decide about one day of one table; see `validate_batches`."""
    return validate_batches(lake, table, [day], label_names=label_names)[0]


def validate_batches(
    lake: Lake, table: str, days: Sequence[date], *, label_names: Collection[str] = (), now_us: int | None = None
) -> list[Report]:
    """Decide about several days in order, as many as possible in one pass, and move what was decided.

    A pass over all days that finds something bad is split in halves until the bad days are alone. A day of which
    nothing new arrived keeps its verdict. Raises NotEvaluated, with nothing moved, when an expectation itself fails.
    """
    known = Known(frozenset(label_names), now_us or int(datetime.now(UTC).timestamp() * 1_000_000))
    arrived = [day for day in days if batches.arrived(lake, table, day)]
    reports = _decide(lake, [batches.read(lake, table, day) for day in arrived], known)
    standing = [_standing(lake, table, day) for day in days if day not in arrived]
    return sorted([*reports, *standing], key=lambda report: report.day)


def _decide(lake: Lake, arrived: list[Batch], known: Known) -> list[Report]:
    if not arrived:
        return []
    with tempfile.TemporaryDirectory() as folder:
        outcomes = _inspect(lake, arrived, Path(folder), known)
    is_bad = not all(outcome.passed for outcome in outcomes)
    if is_bad and len(arrived) > 1:
        half = len(arrived) // 2
        first = _decide(lake, arrived[:half], known)
        return first + _decide(lake, arrived[half:], known)
    return [_settle(lake, batch, Report(batch.table, batch.day, batch.num_rows, outcomes)) for batch in arrived]


def _inspect(lake: Lake, arrived: list[Batch], folder: Path, known: Known) -> tuple[Outcome, ...]:
    """Look at files first, then at columns, then at rows: each only makes sense when the one before holds."""
    table = TABLES[arrived[0].table]
    unreadable = [file.name for batch in arrived for file in batch.files if not batches.is_readable(file)]
    readable = Outcome("expect_file_to_be_parquet", None, "Parquet", not unreadable, len(unreadable), tuple(unreadable))
    if unreadable:
        return (readable,)
    with duckdb.connect(folder / "columns.duckdb") as connection:
        batches.lay_columns(connection, arrived)
    columns = check(folder / "columns.duckdb", "columns", expectations.columns_are_declared(table), id_column="file")
    if not all(outcome.passed for outcome in columns):
        return (readable, *columns)
    database = folder / "rows.duckdb"
    with duckdb.connect(database) as connection:
        batches.lay_rows(connection, lake, arrived, today=day_of(known.now_us))
    rows = expectations.rows_are_valid(table, now_us=known.now_us, label_names=known.label_names)
    found = check(database, "batch", rows, id_column="event_id")
    found += check(database, "volumes", expectations.day_is_usual(table), id_column="day")
    if spread := expectations.spread_is_usual(table):
        found += check(database, "spreads", spread, id_column="day")
    return (readable, *columns, *found)


def _settle(lake: Lake, batch: Batch, report: Report) -> Report:
    """Do what the report says."""
    if report.passed:
        batches.accept(lake, batch)
    else:
        batches.quarantine(lake, batch, report.files())
    return report


def _standing(lake: Lake, table: str, day: date) -> Report:
    """The verdict on a day of which nothing new arrived: refused while a batch of it lies in quarantine."""
    refused = batches.in_quarantine(lake, table, day)
    note = Outcome(
        "expect_no_batch_in_quarantine", None, "a corrected batch", not refused, len(refused), tuple(sorted(refused))
    )
    return Report(table, day, batches.num_rows(lake, table, day), (note,), is_standing=True)
