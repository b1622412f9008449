"""What a training set holds, counted by DuckDB, and what keeps it from being used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

SPLITS = ("train", "validation", "calibration", "test")
MIN_POSITIVES = 5  # in train, for a label to count as learnable


@dataclass(frozen=True)
class Counts:
    """Rows per split, and verdicts per label and split."""

    num_rows: dict[str, int]
    num_known: dict[str, dict[str, int]]
    num_positive: dict[str, dict[str, int]]
    num_repeated_ids: int

    @property
    def problems(self) -> list[str]:
        """Why the set may not be used; empty for a good one."""
        found = [f"split {split} has no rows" for split in SPLITS if not self.num_rows.get(split)]
        if self.num_repeated_ids:
            found.append(f"event_id repeats in {self.num_repeated_ids} rows")
        if not any(by_split.get("train", 0) >= MIN_POSITIVES for by_split in self.num_positive.values()):
            found.append(f"no label has {MIN_POSITIVES} positives in train")
        return found

    @property
    def reason(self) -> str:
        """One line for the run page."""
        return "; ".join(self.problems) or f"{sum(self.num_rows.values()):,} rows in {len(self.num_rows)} splits"

    def metadata(self) -> dict[str, Any]:
        """A table for the Dagster page."""
        lines = ["| label | " + " | ".join(SPLITS) + " |", "|---|" + "---:|" * len(SPLITS)]
        lines.append("| *rows* | " + " | ".join(f"{self.num_rows.get(s, 0):,}" for s in SPLITS) + " |")
        for label, positive in self.num_positive.items():
            known = self.num_known[label]
            cells = [f"{positive.get(s, 0):,} of {known.get(s, 0):,}" for s in SPLITS]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        return {"positives_of_known": dg.MetadataValue.md("\n".join(lines)), "repeated_ids": self.num_repeated_ids}


def counts(path: Path, labels: Sequence[str]) -> Counts:
    """Count a training set's Parquet file."""
    known = ", ".join(f'count("{label}") AS "known_{label}"' for label in labels)
    positive = ", ".join(f'coalesce(sum("{label}"), 0) AS "positive_{label}"' for label in labels)
    query = f"SELECT split, count(*) AS num_rows, {known}, {positive} FROM data GROUP BY split"  # noqa: S608
    with duckdb.connect() as connection:
        connection.read_parquet(str(path)).create_view("data")
        rows = {row["split"]: row for row in connection.sql(query).to_arrow_table().to_pylist()}
        repeated = connection.execute("SELECT count(*) - count(DISTINCT event_id) FROM data").fetchone()
    assert repeated is not None
    return Counts(
        num_rows={split: int(row["num_rows"]) for split, row in rows.items()},
        num_known={label: {s: int(row[f"known_{label}"]) for s, row in rows.items()} for label in labels},
        num_positive={label: {s: int(row[f"positive_{label}"]) for s, row in rows.items()} for label in labels},
        num_repeated_ids=int(repeated[0]),
    )
