"""Lets go of what no policy wants kept any longer: decisions by their own policy, days of the lake by all readers.

A table's days go when every policy whose detector reads the table has let them; labels and features, which serve all
detectors, when every policy has. A policy that keeps for ever keeps for all that share its table. What was decided by a
policy that no detector has any more goes as that policy said when it was last sealed, or else with the longest kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.lake import Lake, Zone
from feature_repo.tables import DECISIONS, EVENT_TABLES, LABELS
from feature_repo.windows import VIEWS
from orchestration.detectors import Detector
from serving.segments import waiting
from training.policy import Policy

_ZONES: tuple[Zone, ...] = ("inbox", "events", "quarantine", "truth")


def enforce(
    lake: Lake, log: Path, detectors: Iterable[Detector], *, today: date, sealed: Iterable[Policy] = ()
) -> dict[str, int]:
    """Remove what is too old; rows of decisions and days of tables that went, by place.

    `sealed` are the policies that ever counted, oldest first.
    """
    known = list(detectors)
    policies = {policy.name: policy for policy in (*sealed, *(d.policy for d in known))}
    kept = {name: policy.privacy.retention_days for name, policy in policies.items()}
    gone: Counter[str] = Counter()
    for day in lake.days("log", DECISIONS.name):
        gone["log/decisions"] += _drop_decisions(lake, day, kept, otherwise=_longest(known), age=(today - day).days)
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


def _drop_decisions(
    lake: Lake, day: date, kept_days: Mapping[str, int | None], *, otherwise: int | None, age: int
) -> int:
    num_gone = 0
    for file in lake.folder("log", DECISIONS.name, day).glob("*.parquet"):
        limits = {name: kept_days.get(name, otherwise) for name in _policies(file)}
        if over := [name for name, days in limits.items() if days is not None and age > days]:
            rows = pq.read_table(file, partitioning=None)
            kept = rows.filter(pc.invert(pc.is_in(rows["policy"], pa.array(over))))
            num_gone += len(rows) - len(kept)
            if len(kept):
                lake.write("log", DECISIONS.name, kept, day=day, name=file.stem)
            else:
                file.unlink()
    return num_gone


def _policies(file: Path) -> list[str]:
    found: list[str] = pc.unique(pq.read_table(file, columns=["policy"], partitioning=None)["policy"]).to_pylist()
    return found


def _drop_segments(log: Path, *, before: date) -> int:
    """Those that were altered and so could never be compacted."""
    old = [path for day, segments in waiting(log).items() if day < before for path in segments]
    for path in old:
        path.unlink()
    return len(old)
