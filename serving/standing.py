"""Where a bundle stands: a pure function of the ledger's signatures, the people in force, and the moment.

No status is stored that could be forged. Approvals count from people who are in force now. Rejections and revocations
count from anybody who ever was, and end it: a release that was refused once comes back only as another release.
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
        # A signature ages from when it was given: appended again later, it is as old as before.
        approved.append(statement.model_copy(update={"at_us": min(statement.at_us, entry.at_us)}))
    return _held_to_promises(entries, bundle, _weigh(approved, who, bundle, now_us=now_us))


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
    if waiting and bundle.kind == "hotfix" and (some := tuple(s for s in by if s.role in who.required_roles)):
        return _for_a_day(some, waiting, now_us=now_us)
    if waiting and eligible and len(by) < len({s.person for s in eligible}):
        return Approval("expired", f"a signature is older than {who.expires_days} days", by, waiting)
    if waiting:
        return Approval("waiting", who.unreviewed or f"waiting for {' and '.join(waiting)}", by, waiting)
    needed = [s for s in by if s.role in who.required_roles]
    reason = "signed by " + ", ".join(f"{s.person} ({s.role})" for s in needed)
    return Approval("approved", reason, by, (), min(s.at_us for s in needed) + life_us)


def _for_a_day(by: tuple[Statement, ...], waiting: tuple[str, ...], *, now_us: int) -> Approval:
    """One signature lets a hotfix live for a day, counted from the first; who signed again does not prolong it."""
    until_us = min(s.at_us for s in by) + DAY_US
    names = ", ".join(f"{s.person} ({s.role})" for s in by)
    if now_us < until_us:
        reason = f"signed by {names} for a day; to stay it needs {' and '.join(waiting)}"
        return Approval("approved", reason, by, waiting, until_us)
    return Approval("expired", f"nobody signed it as {' and '.join(waiting)} within a day", by, waiting, until_us)
