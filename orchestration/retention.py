"""Lets go of what no policy wants kept any longer: decisions by their own policy, days of the lake by all readers.

A table's days go when every policy whose detector reads the table has let them; labels and features, which serve all
detectors, when every policy has. A policy that keeps for ever keeps for all that share its table.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.lake import Lake, Zone
from feature_repo.tables import DECISIONS, EVENT_TABLES, LABELS
from feature_repo.windows import VIEWS
from orchestration.detectors import Detector
from serving.segments import waiting

_ZONES: tuple[Zone, ...] = ("inbox", "events", "quarantine", "truth")


def enforce(lake: Lake, log: Path, detectors: Iterable[Detector], *, today: date) -> dict[str, int]:
    """Remove what is too old; rows of decisions and days of tables that went, by place."""
    known = list(detectors)
    of_policy = {d.policy.name: _longest([d]) for d in known}
    gone: Counter[str] = Counter()
    for policy, kept_days in of_policy.items():
        if kept_days is not None:
            gone["log/decisions"] += _drop_decisions(lake, policy, before=today - timedelta(days=kept_days))
    for table in EVENT_TABLES:
        readers = [d for d in known if d.spec.events == table]
        gone += _drop_days(lake, _ZONES, [table, f"{table}_truth"], kept_days=_longest(readers), today=today)
    everybody = _longest(known)
    gone += _drop_days(lake, _ZONES, [LABELS.name], kept_days=everybody, today=today)
    gone += _drop_days(lake, ("features",), list(VIEWS), kept_days=everybody, today=today)
    if everybody is not None:
        gone["segments"] += _drop_segments(log, before=today - timedelta(days=everybody))
    return dict(+gone)


def _longest(detectors: list[Detector]) -> int | None:
    """For how many days the most demanding policy keeps; None for ever, as where there is no policy at all."""
    kept = [d.policy.privacy.retention_days for d in detectors]
    return max((days for days in kept if days is not None), default=None) if None not in kept else None


def _drop_days(
    lake: Lake, zones: tuple[Zone, ...], tables: list[str], *, kept_days: int | None, today: date
) -> Counter[str]:
    gone: Counter[str] = Counter()
    if kept_days is None:
        return gone
    for zone in zones:
        for table in tables:
            for day in lake.days(zone, table):
                if day < today - timedelta(days=kept_days):
                    lake.remove(zone, table, day)
                    gone[f"{zone}/{table}"] += 1
    return gone


def _drop_decisions(lake: Lake, policy: str, *, before: date) -> int:
    num_gone = 0
    for day in lake.days("log", DECISIONS.name):
        if day < before:
            for file in lake.folder("log", DECISIONS.name, day).glob("*.parquet"):
                rows = pq.read_table(file, partitioning=None)
                kept = rows.filter(pc.not_equal(rows["policy"], policy))
                num_gone += len(rows) - len(kept)
                if not len(kept):
                    file.unlink()
                elif len(kept) < len(rows):
                    lake.write("log", DECISIONS.name, kept, day=day, name=file.stem)
    return num_gone


def _drop_segments(log: Path, *, before: date) -> int:
    """Those that were altered and so could never be compacted."""
    old = [path for day, segments in waiting(log).items() if day < before for path in segments]
    for path in old:
        path.unlink()
    return len(old)
