"""Whether people of the required roles signed a bundle, and what refuses one that they did not sign.

What counts is computed from the ledger's signatures each time it is asked; no status is stored that could be forged.
Approvals count from people who are in force now. Rejections and revocations count from anybody who ever was, and end
it: a release that was refused once comes back only as another release.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from securesystemslib.signer import CryptoSigner

from serving.bundle import Bundle, Verified, verify
from serving.keys import text_of
from serving.ledger import Entry, Ledger, Page
from serving.people import Authority, People, Person, authority, fold, proven
from serving.refusals import record, record_refusal
from serving.sealed_files import BundleAltered
from serving.statement import SignatureInvalid, Statement, StatementKind, envelop

State = Literal["waiting", "approved", "rejected", "revoked", "expired"]
DAY_US = 86_400_000_000


class NotApproved(Exception):
    """A bundle may not be served."""


class SigningRefused(Exception):
    """A person may not make this statement."""


@dataclass(frozen=True)
class Approval:
    """Where a bundle stands, who signed, whose signature it waits for, and why."""

    state: State
    reason: str
    signed_by: tuple[Statement, ...] = ()
    waiting_for: tuple[str, ...] = ()
    expires_us: int | None = None


def status(ledger: Ledger, people: People, bundle: Bundle, *, now_us: int | None = None) -> Approval:
    """Where a bundle stands now."""
    entries = ledger.entries()
    return _status(entries, authority(entries, people), bundle, now_us=_now(now_us))


def require_servable(
    ledger: Ledger, people: People, path: Path, *, verified: Verified | None = None, now_us: int | None = None
) -> Bundle:
    """The bundle in a folder named by its digest, proven unaltered and approved.

    Raises BundleAltered, NotApproved or LedgerAltered; a refusal is recorded.
    """
    try:
        bundle = verify(path, path.name, verified=verified)
    except BundleAltered as refusal:
        record_refusal(ledger, path.parent.name, path.name, str(refusal))
        raise
    approval = status(ledger, people, bundle, now_us=now_us)
    if approval.state != "approved":
        record_refusal(ledger, bundle.subject, bundle.digest, f"{approval.state}: {approval.reason}")
        raise NotApproved(f"{bundle.subject} {bundle.digest[:12]} is {approval.state}: {approval.reason}")
    return bundle


def sign(
    ledger: Ledger, people: People, bundle: Bundle, *, signer: CryptoSigner, reason: str = "", role: str | None = None
) -> Approval:
    """Approve the digest of an unaltered bundle in one role; signing twice is signing once."""
    verify(bundle.path, bundle.digest)
    with ledger.writing() as page:
        who = authority(page.entries, people)
        person = _person(page, who, bundle, signer)
        approval = _status(page.entries, who, bundle, now_us=_now(None))
        if any(s.person == person.name for s in approval.signed_by):
            return approval
        role = role or next((r for r in approval.waiting_for if r in person.roles), person.roles[0])
        if why := _why_not(approval, bundle, person, role):
            _refuse(page, bundle, f"{person.name} as {role}: {why}")
        _write(page, _statement(page, "approved", bundle, person, role=role, reason=reason), signer)
        return _status(page.entries, who, bundle, now_us=_now(None))


def reject(ledger: Ledger, people: People, bundle: Bundle, *, signer: CryptoSigner, reason: str) -> Approval:
    """Refuse a bundle for good, with a reason."""
    return _end(ledger, people, bundle, signer=signer, reason=reason, kind="rejected")


def revoke(ledger: Ledger, people: People, bundle: Bundle, *, signer: CryptoSigner, reason: str) -> Approval:
    """Take an approval back for good: what serves it goes back to the approved release before it."""
    return _end(ledger, people, bundle, signer=signer, reason=reason, kind="revoked")


def _end(
    ledger: Ledger, people: People, bundle: Bundle, *, signer: CryptoSigner, reason: str, kind: StatementKind
) -> Approval:
    if not reason.strip():
        raise ValueError(f"reason is {reason!r}; a bundle is {kind} with a reason")
    with ledger.writing() as page:
        who = authority(page.entries, people)
        person = _person(page, who, bundle, signer)
        approval = _status(page.entries, who, bundle, now_us=_now(None))
        if approval.state in ("rejected", "revoked"):
            return approval
        _write(page, _statement(page, kind, bundle, person, role=person.roles[0], reason=reason), signer)
        return _status(page.entries, who, bundle, now_us=_now(None))


def _status(entries: Sequence[Entry], who: Authority, bundle: Bundle, *, now_us: int) -> Approval:
    approved: list[Statement] = []
    for entry in entries:
        if entry.body.get("digest") != bundle.digest or entry.kind not in ("approved", "rejected", "revoked"):
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
    return _weigh(approved, who, bundle, now_us=now_us)


def _weigh(approved: list[Statement], who: Authority, bundle: Bundle, *, now_us: int) -> Approval:
    involved = _involved(bundle)
    eligible = [s for s in approved if fold(s.person) not in involved and s.role in who.persons[s.person].roles]
    life_us = who.expires_days * DAY_US
    signed: dict[str, Statement] = {}  # by person: somebody with two roles still signs in one
    for statement in eligible:
        if now_us < statement.at_us + life_us:
            signed.setdefault(statement.person, statement)
    by = tuple(signed.values())
    waiting = tuple(r for r in who.required_roles if r not in {s.role for s in by})
    if waiting and eligible and len(by) < len({s.person for s in eligible}):
        return Approval("expired", f"a signature is older than {who.expires_days} days", by, waiting)
    if waiting:
        return Approval("waiting", who.unreviewed or f"waiting for {' and '.join(waiting)}", by, waiting)
    needed = [s for s in by if s.role in who.required_roles]
    reason = "signed by " + ", ".join(f"{s.person} ({s.role})" for s in needed)
    return Approval("approved", reason, by, (), min(s.at_us for s in needed) + life_us)


def _involved(bundle: Bundle) -> set[str]:
    """Who made what is to be approved."""
    return {fold(name) for name in (bundle.facts["started_by"], *bundle.facts.get("persons", []))}


def _person(page: Page, who: Authority, bundle: Bundle, signer: CryptoSigner) -> Person:
    person = who.owner(text_of(signer))
    if person is None:
        _refuse(page, bundle, who.unreviewed or "the key belongs to nobody in the reviewed people file")
    return person


def _why_not(approval: Approval, bundle: Bundle, person: Person, role: str) -> str:
    if fold(person.name) in _involved(bundle):
        return "started the run or is named in its lineage, and cannot approve it"
    if role not in person.roles:
        return f"has the roles {person.roles}"
    if approval.state in ("rejected", "revoked"):
        return approval.reason
    if approval.state == "waiting" and role not in approval.waiting_for:
        return f"the signature is not waited for; {approval.reason}"
    return ""


def _write(page: Page, statement: Statement, signer: CryptoSigner) -> None:
    shown = statement.model_dump(include={"subject", "digest", "person", "role", "reason"})
    page.append(statement.kind, shown | {"envelope": envelop(statement, signer)})


def _statement(page: Page, kind: StatementKind, bundle: Bundle, person: Person, *, role: str, reason: str) -> Statement:
    head = page.ledger.head
    return Statement(
        kind=kind,
        subject=bundle.subject,
        digest=bundle.digest,
        person=person.name,
        role=role,
        reason=reason,
        at_us=_now(None),
        seen_number=head.number,
        seen_hash=head.hash,
    )


def _refuse(page: Page, bundle: Bundle, why: str) -> NoReturn:
    record(page, bundle.subject, bundle.digest, why)
    raise SigningRefused(f"{bundle.subject} {bundle.digest[:12]}: {why}")


def _now(now_us: int | None) -> int:
    return time.time_ns() // 1000 if now_us is None else now_us
