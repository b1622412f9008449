"""Hotfixes of one home: tried on what was logged, sealed, and served with what is served now."""

import json
import time
from collections.abc import Iterator

from orchestration.approvals import Approvals, who
from serving.bundle import Bundle, read
from serving.cuts import Cut, Move
from serving.decision_log import logged
from serving.deployment import Deployment
from serving.hotfix import Backtest, Hotfix, seal_hotfix
from serving.record import Record, decode
from serving.release import find, read_policy
from serving.standing import DAY_US


def seal(
    desk: Approvals, detector: str, moves: list[Move], *, reason: str, most: int, days: int
) -> tuple[Bundle, Backtest]:
    """Try a change of what is served now on the decisions of the last days, and seal both."""
    release, policy = desk.served(detector)
    hotfix = Hotfix(
        detector=detector,
        release=release.digest,
        policy=policy.digest,
        reason=reason,
        max_actions_per_day=most,
        moves=moves,
    )
    sealed = json.loads(read(release, "thresholds.json"))
    return seal_hotfix(
        hotfix,
        _logged(desk, detector, since_us=time.time_ns() // 1000 - days * DAY_US),
        desk.shelves.hotfixes,
        cuts={label: Cut.of(one) for label, one in sealed.items()},
        policy=read_policy(policy),
        started_by=who(),
    )


def deploy(desk: Approvals, prefix: str) -> Deployment:
    """Serve what is served now, changed as a signed hotfix says."""
    bundle = find(desk.shelves.hotfixes, prefix)
    return desk.deploy(*desk.served(bundle.name), hotfix=bundle)


def _logged(desk: Approvals, detector: str, *, since_us: int) -> Iterator[Record]:
    """What the lake knows, and what has not reached it yet; each decision once."""
    with desk.settings.lake.connect() as connection:
        query = "SELECT record FROM decisions WHERE detector = ? AND at_us >= ?"
        rows = connection.execute(query, [detector, since_us]).fetchall()
    known = [decode(row[0]) for row in rows]
    yield from known
    seen = {record.decision_id for record in known}
    yield from (r for r in logged(desk.settings.decisions, since_us=since_us) if r.decision_id not in seen)
