"""A hotfix: a rule or a threshold that is changed at night under a release that stays what it is.

It holds no model, cannot be sealed without a backtest on decisions that were logged, has an action budget of its own
beside the policy's, counts with one signature for a day in a week, which all hotfixes of its detector share, and with
those of all required roles like anything else.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from serving.bundle import Bundle, read, seal
from serving.cuts import Cut, Move
from serving.decide import Decision, Limit, decide
from serving.live import Live
from serving.record import Record
from training.policy import Action, Contract, Policy

LIFE_US = 86_400_000_000  # with one signature
_FILES = {"hotfix.json", "backtest.json", "card.md"}
_FEWEST = 100  # logged decisions below which a backtest shows nothing


class HotfixRefused(Exception):
    """A change that may not be sealed, or a bundle that is no hotfix of this release."""


class Hotfix(Contract):
    """What changes under which release and policy, why, and how much it may do in a day.

    The first move whose conditions an event meets sets the threshold of its label: 0 always finds it, null never does.
    """

    detector: str
    release: str
    policy: str
    reason: str
    max_actions_per_day: int
    moves: list[Move]

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not self.moves:
            raise ValueError("hotfix.moves is empty; a hotfix changes at least one threshold")
        if not self.reason.strip():
            raise ValueError(f"hotfix.reason is {self.reason!r}; somebody is woken up to read it")
        if self.max_actions_per_day < 0:
            raise ValueError(f"hotfix.max_actions_per_day is {self.max_actions_per_day}; it must be at least 0")
        return self

    def changes(self, cuts: Mapping[str, Cut]) -> dict[str, Cut]:
        """The thresholds of a release with these moves; raises HotfixRefused for a label that it does not have."""
        if unknown := {move.label for move in self.moves} - cuts.keys():
            raise HotfixRefused(f"hotfix.moves names {sorted(unknown)}; the release has {sorted(cuts)}")
        mine = {label: tuple(m for m in self.moves if m.label == label) for label in cuts}
        return {label: replace(cut, moves=mine[label]) for label, cut in cuts.items()}


class Backtest(Contract):
    """What a hotfix would have done to decisions that were logged: the same `decide`, on the same scores."""

    num_decisions: int
    first_us: int
    last_us: int
    before: dict[str, int]
    after: dict[str, int]
    num_harder: int
    num_milder: int
    most_actions_in_a_day: int


def backtest(hotfix: Hotfix, records: Iterable[Record], *, cuts: Mapping[str, Cut], policy: Policy) -> Backtest:
    """Decide again, as released and as changed, what this release decided for callers.

    Budgets are left out, so that nothing is hidden. Other releases' scores mean nothing at these thresholds.
    """
    changed, before, after, days = hotfix.changes(cuts), Counter[str](), Counter[str](), Counter[int]()
    times: list[int] = []
    num_harder = num_milder = 0
    for record in records:
        is_its_own = (record.detector, record.release) == (hotfix.detector, hotfix.release)
        if not is_its_own or record.role == "challenger" or record.scores is None:
            continue
        was, now = (_decided(record, some, policy).action for some in (cuts, changed))
        before[was] += 1
        after[now] += 1
        num_harder += now.severity > was.severity
        num_milder += now.severity < was.severity
        days[record.at_us // LIFE_US] += now.severity > Action.LOG.severity
        times.append(record.at_us)
    if len(times) < _FEWEST:
        raise HotfixRefused(
            f"{len(times)} logged decisions of {hotfix.detector} by release {hotfix.release[:12]}; "
            f"a backtest needs {_FEWEST}"
        )
    return Backtest(
        num_decisions=len(times),
        first_us=min(times),
        last_us=max(times),
        before=dict(before),
        after=dict(after),
        num_harder=num_harder,
        num_milder=num_milder,
        most_actions_in_a_day=max(days.values()),
    )


def seal_hotfix(
    hotfix: Hotfix,
    records: Iterable[Record],
    hotfixes: Path,
    *,
    cuts: Mapping[str, Cut],
    policy: Policy,
    started_by: str,
) -> tuple[Bundle, Backtest]:
    """Backtest a change and seal both; raises HotfixRefused where it would do more than its own budget allows."""
    found = backtest(hotfix, records, cuts=cuts, policy=policy)
    if found.most_actions_in_a_day > hotfix.max_actions_per_day:
        raise HotfixRefused(
            f"on the logged decisions it does up to {found.most_actions_in_a_day} actions a day; "
            f"hotfix.max_actions_per_day is {hotfix.max_actions_per_day}"
        )
    with tempfile.TemporaryDirectory() as staging:
        for name, content in (("hotfix", hotfix), ("backtest", found)):
            (Path(staging) / f"{name}.json").write_text(content.model_dump_json(indent=1), encoding="utf-8")
        (Path(staging) / "card.md").write_text(_card(hotfix, found), encoding="utf-8")
        facts = {"started_by": started_by, "persons": []}
        return seal(Path(staging), hotfixes, kind="hotfix", name=hotfix.detector, facts=facts), found


def read_hotfix(bundle: Bundle, *, release: str, policy: str) -> Hotfix:
    """The change as it was sealed, for the release and policy that it was tested on; raises HotfixRefused."""
    if bundle.kind != "hotfix" or set(bundle.files) != _FILES:
        raise HotfixRefused(f"{bundle.subject} holds {sorted(bundle.files)}; a hotfix holds {sorted(_FILES)}")
    found = Hotfix.model_validate_json(read(bundle, "hotfix.json"))
    Backtest.model_validate_json(read(bundle, "backtest.json"))
    if (found.detector, found.release, found.policy) != (bundle.name, release, policy):
        raise HotfixRefused(f"{bundle.subject} {bundle.digest[:12]} changes another release or policy")
    return found


def applied(live: Live, bundle: Bundle) -> Live:
    """A live release under a hotfix."""
    hotfix = read_hotfix(bundle, release=live.release, policy=live.policy_ref.digest)
    ref = _with_hotfix(live, bundle.digest)
    limit = Limit(f"{live.policy.name}-hotfix-{bundle.digest}", "hotfix", hotfix.max_actions_per_day)
    return replace(live, cuts=hotfix.changes(live.cuts), policy_ref=ref, hotfix=limit)


def _with_hotfix(live: Live, digest: str) -> Any:
    ref = live.policy_ref
    return type(ref)(ref.name, ref.version, ref.digest, digest)


def _decided(record: Record, cuts: Mapping[str, Cut], policy: Policy) -> Decision:
    assert record.scores is not None
    row = {**record.event, **record.features.values}
    return decide(
        record.scores,
        {label: cut.at(row) for label, cut in cuts.items()},
        policy=policy,
        review_from={label: cut.review_from for label, cut in cuts.items()},
        strikes=record.strikes,
    )


def _card(hotfix: Hotfix, found: Backtest) -> str:
    """What whoever is on call reads before signing."""
    lines = [f"# {hotfix.detector}: hotfix", "", hotfix.reason, "", "## What changes", ""]
    lines += [f"- {move.in_words()}" for move in hotfix.moves]
    lines += ["", f"At most {hotfix.max_actions_per_day} actions a day.", ""]
    lines += [f"## On {found.num_decisions} logged decisions", "", "| action | before | after |", "|---|---|---|"]
    actions = [action for action in Action if action in found.before or action in found.after]
    lines += [f"| {action} | {found.before.get(action, 0)} | {found.after.get(action, 0)} |" for action in actions]
    lines += ["", f"{found.num_harder} end harder, {found.num_milder} milder.", ""]
    lines += ["No promise is proved for a changed threshold. One signature counts for 24 hours, once in a week.", ""]
    return "\n".join(lines)
