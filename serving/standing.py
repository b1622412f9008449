"""Where a bundle stands: a pure function of the ledger's signatures, the people in force, and the moment.

No status is stored that could be forged. Approvals count from people who are in force now. Rejections and revocations
count from anybody who ever was, and end it: a release that was refused once comes back only as another release.
One signature lets the hotfixes of a detector live for a day in each week: a night is got over, no change stays by being
sealed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from serving.bundle import Bundle
from serving.ledger import Entry
from serving.people import Authority, fold, proven
from serving.statement import SignatureInvalid, Statement

State = Literal["waiting", "approved", "rejected", "revoked", "expired"]
DAY_US = 86_400_000_000
_WEEK_US = 7 * DAY_US
SIGNED = ("approved", "rejected", "revoked")


@dataclass(frozen=True)
class Approval:
    """Where a bundle stands, who signed, whose signature it waits for, why, and which promises no longer hold."""

    state: State
    reason: str
    signed_by: tuple[Statement, ...] = ()
    waiting_for: tuple[str, ...] = ()
    expires_us: int | None = None
    broken: tuple[str, ...] = ()


def standing(entries: Sequence[Entry], who: Authority, bundle: Bundle, *, now_us: int) -> Approval:
    """Where a bundle stands at a moment."""
    approved: list[Statement] = []
    for entry in entries:
        if entry.body.get("digest") != bundle.digest or entry.kind not in SIGNED:
            continue
        persons = list(who.persons.values()) if entry.kind == "approved" else who.ever
        try:
            statement = proven(entries, entry, persons)
        except SignatureInvalid:
            continue
        if statement.subject != bundle.subject:
            continue
        if statement.kind in ("rejected", "revoked"):
            return Approval(statement.kind, f"{statement.kind} by {statement.person}: {statement.reason}")
        approved.append(_aged(statement, entry))
    approval = _weigh(approved, who, bundle, now_us=now_us)
    is_signed = any(s.role in who.required_roles for s in approval.signed_by)
    if bundle.kind == "hotfix" and approval.waiting_for and is_signed:
        approval = _for_a_day(approval, _day_begun_us(entries, who, bundle), now_us=now_us)
    return _held_to_promises(entries, bundle, approval)


def _held_to_promises(entries: Sequence[Entry], bundle: Bundle, approval: Approval) -> Approval:
    """A promise that live verdicts showed to be broken flags a release, and ends it where its policy said so.

    The entry needs no signature: it can only take trust away.
    """
    found = [e.body for e in entries if e.kind == "promise_broken" and e.body.get("digest") == bundle.digest]
    broken = tuple(str(body["reason"]) for body in found)
    if approval.state == "approved" and any(body["expires"] for body in found):
        return replace(approval, state="expired", reason=f"a promise no longer holds: {broken[0]}", broken=broken)
    return replace(approval, broken=broken)


def involved(bundle: Bundle) -> set[str]:
    """Who made what is to be approved, and so cannot approve it."""
    return {fold(name) for name in (bundle.facts["started_by"], *bundle.facts.get("persons", []))}


def renews(statement: Statement, before: Statement, bundle: Bundle) -> bool:
    """Whether an approval takes the place of an earlier one by the same person; within a day it says nothing new.

    A hotfix is not kept alive by signing it again.
    """
    return bundle.kind != "hotfix" and statement.role == before.role and statement.at_us >= before.at_us + DAY_US


def _weigh(approved: list[Statement], who: Authority, bundle: Bundle, *, now_us: int) -> Approval:
    makers: set[str] = set() if bundle.kind == "hotfix" else involved(bundle)
    eligible = [s for s in approved if fold(s.person) not in makers and s.role in who.persons[s.person].roles]
    life_us = who.expires_days * DAY_US
    signed: dict[str, Statement] = {}  # by person: somebody with two roles still signs in one
    for statement in (s for s in eligible if now_us < s.at_us + life_us):
        if renews(statement, signed.setdefault(statement.person, statement), bundle):
            signed[statement.person] = statement
    by = tuple(signed.values())
    waiting = tuple(r for r in who.required_roles if r not in {s.role for s in by})
    if waiting and eligible and len(by) < len({s.person for s in eligible}):
        return Approval("expired", f"a signature is older than {who.expires_days} days", by, waiting)
    if waiting:
        return Approval("waiting", who.unreviewed or f"waiting for {' and '.join(waiting)}", by, waiting)
    needed = [s for s in by if s.role in who.required_roles]
    reason = "signed by " + ", ".join(f"{s.person} ({s.role})" for s in needed)
    return Approval("approved", reason, by, (), min(s.at_us for s in needed) + life_us)


def _for_a_day(waiting: Approval, begun_us: int, *, now_us: int) -> Approval:
    """One signature lets a hotfix live until the detector's day ends; who signed again does not prolong it."""
    names = ", ".join(f"{s.person} ({s.role})" for s in waiting.signed_by)
    roles, until_us = " and ".join(waiting.waiting_for), begun_us + DAY_US
    if now_us < until_us:
        reason = f"signed by {names} for a day; to stay it needs {roles}"
        return replace(waiting, state="approved", reason=reason, expires_us=until_us)
    reason = f"nobody signed it as {roles} within a day; until a week has passed one signature gives no other"
    return replace(waiting, state="expired", reason=reason, expires_us=until_us)


def _day_begun_us(entries: Sequence[Entry], who: Authority, bundle: Bundle) -> int:
    """When the day began in which a hotfix was signed, or for the week the last day before it.

    Hotfixes of the same detector that all roles signed take no day.
    """
    signed: dict[str, list[Statement]] = {}
    for entry in (e for e in entries if e.kind == "approved"):
        try:
            statement = proven(entries, entry, who.ever)
        except SignatureInvalid:
            continue
        if statement.subject == bundle.subject:
            signed.setdefault(statement.digest, []).append(_aged(statement, entry))
    first_us = min(s.at_us for s in signed[bundle.digest])
    alone = [some for some in signed.values() if not set(who.required_roles) <= {s.role for s in some}]
    begun_us = 0
    for at_us in sorted(s.at_us for some in alone for s in some if s.at_us <= first_us):
        begun_us = at_us if at_us >= begun_us + _WEEK_US else begun_us
    return begun_us


def _aged(statement: Statement, entry: Entry) -> Statement:
    """A signature ages from when it was given: appended again later, it is as old as before."""
    return statement.model_copy(update={"at_us": min(statement.at_us, entry.at_us)})
