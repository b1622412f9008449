"""Holds what is served to its promises, on decisions of the lake that people reviewed with a known probability."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from orchestration.approvals import Approvals
from serving.bundle import Bundle, read
from serving.cuts import segment_of
from serving.record import decode
from serving.release import find, read_policy
from training.policy import Promise
from training.promise_watch import Live, Watch, watch

# The last verdict counts, whoever gave it; the first draw of a reviewer says what it stands for.
_REVIEWED = """
    SELECT arg_min(d.record, d.at_us), arg_min(d.labels, d.at_us), l.label, last(l.value ORDER BY l.known_us, l.value),
           first(l.sampling_probability ORDER BY l.known_us, l.sampling_probability DESC)
               FILTER (l.source = 'reviewer' AND l.sampling_probability > 0) AS probability
    FROM decisions d JOIN labels l ON l.event_id = d.event_id AND l.event_table = d.event_table
    WHERE d.release = ? AND d.role = 'champion' AND NOT d.degraded
    GROUP BY d.event_id, l.label HAVING probability IS NOT NULL
"""


def recheck(desk: Approvals, detector: str) -> list[Watch]:
    """Every promise of the served release; one that no longer holds goes to the ledger, once for what follows of it."""
    now = desk.servable(detector)
    if now is None:
        return []
    release = find(desk.settings.releases, now.release)
    found = list(_watched(desk, release))
    expires = read_policy(find(desk.settings.policies, now.policy)).when_promise_breaks == "expire"
    said = [e.body for e in desk.ledger.entries() if _is_about(e.kind, e.body, release)]
    known = {(body["label"], body["segment"], body["kind"], body["expires"]) for body in said}
    for one in found:
        if one.is_broken and (one.label, one.segment, one.kind, expires) not in known:
            desk.ledger.append("promise_broken", _entry(release, one, expires=expires))
    return found


def _watched(desk: Approvals, release: Bundle) -> Iterator[Watch]:
    sealed = json.loads(read(release, "thresholds.json"))
    rows = _rows(desk, release)
    parts = [(label, segment) for label, one in sealed.items() for segment in (one.get("segments") or {None: one})]
    proved = [(n, s) for n, s in parts if (sealed[n]["segments"][s] if s else sealed[n])["threshold"] is not None]
    held = [(n, s, one) for n, s in proved for one in Promise.model_validate(sealed[n]["promise"]).each_kind()]
    for label, segment, promise in held:
        named = sealed[label].get("segments") or {}
        mine = [row for row in rows if row["label"] == label and _is_in(row, promise.per, segment, named)]
        yield watch(label, promise, _live(mine), num_promises=len(held), segment=segment)


def _rows(desk: Approvals, release: Bundle) -> list[dict[str, Any]]:
    with desk.settings.lake.connect() as connection:
        found = connection.execute(_REVIEWED, [release.digest]).fetchall()
    rows = [dict(zip(("record", "labels", "label", "value", "probability"), row, strict=True)) for row in found]
    return [row | {"record": record} for row in rows if not (record := decode(row["record"])).policy.hotfix]


def _is_in(row: Mapping[str, Any], per: str | None, segment: str | None, named: Mapping[str, Any]) -> bool:
    if per is None or segment is None:
        return True
    record = row["record"]
    value = segment_of({**record.event, **record.features.values}.get(per))
    return (value if value in named else "other") == segment


def _live(rows: list[dict[str, Any]]) -> Live:
    return Live(
        event_ids=[row["record"].event["event_id"] for row in rows],
        flagged=np.array([row["label"] in row["labels"] for row in rows], dtype=bool),
        violates=np.array([row["value"] == 1 for row in rows], dtype=bool),
        probabilities=np.array([row["probability"] for row in rows], dtype=np.float64),
    )


def _is_about(kind: str, body: Mapping[str, Any], release: Bundle) -> bool:
    return kind == "promise_broken" and body["digest"] == release.digest


def _entry(release: Bundle, one: Watch, *, expires: bool) -> dict[str, Any]:
    facts = {"subject": release.subject, "digest": release.digest, "reason": one.in_words(), "expires": expires}
    return facts | one.model_dump(exclude={"is_broken"})
