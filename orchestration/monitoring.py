"""What one detector did on one day: counted from the lake's decisions, beside what its release was evaluated on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from feature_repo.lake import Lake
from feature_repo.tables import DECISIONS
from training.score_bins import ScoreBins, Shift

_COUNTS = """
    SELECT release, policy_version, action, count(*) AS decisions, count(*) FILTER (degraded) AS degraded,
           quantile_cont(greatest(at_us - event_us, 0) / 1e6, [0.5, 0.95]) AS latency_s
    FROM decided WHERE role = 'champion' GROUP BY ALL ORDER BY decisions DESC
"""


@dataclass(frozen=True)
class Row:
    """Decisions of one release and policy with one action; latency is from the event to its decision, in seconds."""

    release: str
    policy_version: int
    action: str
    num_decisions: int
    num_degraded: int
    latency_s: Sequence[float]


@dataclass(frozen=True)
class DayOfDecisions:
    """What a detector decided on a day, and how far its scores lie from the evaluated ones, by label and release."""

    day: date
    rows: list[Row]
    shifts: dict[tuple[str, str], Shift]

    @property
    def num_decisions(self) -> int:
        """Decisions of champions."""
        return sum(row.num_decisions for row in self.rows)

    @property
    def degraded_share(self) -> float:
        """Of the decisions, those without a score."""
        return sum(row.num_degraded for row in self.rows) / max(1, self.num_decisions)

    @property
    def drifted(self) -> list[str]:
        """One line for each label whose scores lie too far away."""
        return [
            f"{self.day}: {label} of release {release[:12]} has index {shift.index:.2f} over {shift.num_rows} scores"
            for (release, label), shift in self.shifts.items()
            if shift.is_drift
        ]

    def metadata(self) -> dict[str, Any]:
        """Numbers that Dagster draws over the days."""
        actions: dict[str, int] = {}
        for row in self.rows:
            actions[row.action] = actions.get(row.action, 0) + row.num_decisions
        found = {"decisions": self.num_decisions, "degraded_share": self.degraded_share}
        found |= {f"action_{action}": number for action, number in actions.items()}
        found |= {"latency_p95_s": max((row.latency_s[1] for row in self.rows), default=0.0)}
        return found | {"largest_shift": max((shift.index for shift in self.shifts.values()), default=0.0)}

    def to_markdown(self) -> str:
        """Two tables: what was done, and how the scores lie."""
        lines = ["| release | policy | action | decisions | without a score | latency p50 s | p95 s |"]
        lines.append("|---|---:|---|---:|---:|---:|---:|")
        lines += [
            f"| {r.release[:12]} | {r.policy_version} | {r.action} | {r.num_decisions:,} | {r.num_degraded:,} "
            f"| {r.latency_s[0]:.2f} | {r.latency_s[1]:.2f} |"
            for r in self.rows
        ]
        lines += [
            "",
            "| release | label | scores | stability index | by chance below | |",
            "|---|---|---:|---:|---:|---|",
        ]
        lines += [
            f"| {release[:12]} | {label} | {s.num_rows:,} | {s.index:.3f} | {s.by_chance:.3f} "
            f"| {'**drift**' if s.is_drift else ''} |"
            for (release, label), s in self.shifts.items()
        ]
        return "\n".join(lines)


def day_of_decisions(lake: Lake, releases: Path, detector: str, day: date) -> DayOfDecisions:
    """Count a day's decisions of a detector; a release that was sealed without score bins is compared with nothing."""
    with lake.connect() as connection:
        decided = lake.select("log", DECISIONS.name, first=day, last=day)
        connection.execute(f"CREATE TEMP VIEW decided AS SELECT * FROM ({decided}) WHERE detector = '{detector}'")  # noqa: S608
        rows = [Row(*row) for row in connection.execute(_COUNTS).fetchall()]
        shifts = {}
        for release in sorted({row.release for row in rows}):
            for label, bins in _evaluated(releases / detector / release).items():
                shifts[release, label] = bins.shift(_scores(connection, release, label))
    return DayOfDecisions(day, rows, shifts)


def _evaluated(release: Path) -> Mapping[str, ScoreBins]:
    path = release / "evaluation.json"
    labels = json.loads(path.read_text(encoding="utf-8"))["labels"] if path.exists() else {}
    return {name: ScoreBins.model_validate(one["scores"]) for name, one in labels.items() if one.get("scores")}


def _scores(connection: duckdb.DuckDBPyConnection, release: str, label: str) -> Any:
    query = "SELECT scores[?] AS score FROM decided WHERE release = ? AND role = 'champion' AND NOT degraded"
    return connection.execute(query, [label, release]).fetchnumpy()["score"]
