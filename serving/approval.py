"""What people state about a bundle, and what refuses one that they did not approve.

Stating takes two steps, so that a key may lie anywhere: `draft` writes the statement that is to be signed, `submit`
takes the signed one. A key file does both at once (`sign`); a browser's passkey signs between two requests.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from securesystemslib.signer import Signer

from serving.bundle import Bundle, Kind, Verified, verify
from serving.keys import text_of
from serving.ledger import Ledger, Page
from serving.people import Authority, People, Person, authority, fold
from serving.refusals import record, record_refusal
from serving.sealed_files import BundleAltered
from serving.standing import SIGNED, Approval, involved, renews, standing
from serving.statement import SignatureInvalid, Statement, StatementKind, envelop, open_envelope, peek

LONGEST_DRAFT_US = 600_000_000  # a draft that somebody kept is no statement of today


class NotApproved(Exception):
    """A bundle may not be served."""


class SigningRefused(Exception):
    """A person may not make this statement."""


def status(ledger: Ledger, people: People, bundle: Bundle, *, now_us: int | None = None) -> Approval:
    """Where a bundle stands now."""
    entries = ledger.entries()
    return standing(entries, authority(entries, people), bundle, now_us=_now(now_us))


def require_servable(
    ledger: Ledger,
    people: People,
    path: Path,
    *,
    kind: Kind | None = None,
    verified: Verified | None = None,
    now_us: int | None = None,
) -> Bundle:
    """The bundle in a folder named by its digest, proven unaltered, of a kind, and approved.

    Raises BundleAltered, NotApproved or LedgerAltered; a refusal is recorded.
    """
    try:
        bundle = verify(path, path.name, verified=verified)
    except BundleAltered as refusal:
        record_refusal(ledger, path.parent.name, path.name, str(refusal))
        raise
    if kind is not None and (bundle.kind, bundle.name) != (kind, path.parent.name):
        record_refusal(ledger, bundle.subject, bundle.digest, f"is no {kind}/{path.parent.name}")
        raise NotApproved(f"{bundle.subject} {bundle.digest[:12]} is no {kind} of {path.parent.name}")
    approval = status(ledger, people, bundle, now_us=now_us)
    if approval.state != "approved":
        record_refusal(ledger, bundle.subject, bundle.digest, f"{approval.state}: {approval.reason}")
        raise NotApproved(f"{bundle.subject} {bundle.digest[:12]} is {approval.state}: {approval.reason}")
    return bundle


def draft(
    ledger: Ledger,
    people: People,
    bundle: Bundle,
    *,
    key: str,
    kind: StatementKind = "approved",
    reason: str = "",
    role: str | None = None,
) -> Statement:
    """The statement that the owner of a public key would sign about a bundle; raises SigningRefused.

    What is approved must be unaltered, else raises BundleAltered; what is ended needs no more than its digest.
    """
    if kind == "approved":
        verify(bundle.path, bundle.digest)
    with ledger.writing() as page:
        desk = _Desk.at(page, people, bundle)
        person = desk.who.owner(key)
        if person is None:
            desk.refuse(desk.who.unreviewed or "the key belongs to nobody in the reviewed people file")
        role = role or desk.role_of(person)
        head = ledger.head
        statement = Statement(
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
        desk.check(statement, person)
        return statement


def submit(ledger: Ledger, people: People, bundle: Bundle, envelope: dict[str, Any]) -> Approval:
    """Write a signed statement to the ledger; stating twice is stating once. Raises SigningRefused.

    An approval may be given again after a day, so that it can be renewed long before it expires.
    """
    with suppress(SignatureInvalid):  # which is refused, and recorded, below
        if peek(envelope).kind == "approved":
            verify(bundle.path, bundle.digest)
    with ledger.writing() as page:
        desk = _Desk.at(page, people, bundle)
        statement, person = desk.opened(envelope)
        if desk.is_stated(statement):
            return desk.approval
        desk.check(statement, person)
        shown = statement.model_dump(include={"subject", "digest", "person", "role", "reason"})
        page.append(statement.kind, shown | {"envelope": envelope})
        return _Desk.at(page, people, bundle).approval


def sign(
    ledger: Ledger, people: People, bundle: Bundle, *, signer: Signer, reason: str = "", role: str | None = None
) -> Approval:
    """Approve the digest of an unaltered bundle in one role."""
    statement = draft(ledger, people, bundle, key=text_of(signer), reason=reason, role=role)
    return submit(ledger, people, bundle, envelop(statement, signer))


def reject(ledger: Ledger, people: People, bundle: Bundle, *, signer: Signer, reason: str) -> Approval:
    """Refuse a bundle for good, with a reason."""
    statement = draft(ledger, people, bundle, key=text_of(signer), kind="rejected", reason=reason)
    return submit(ledger, people, bundle, envelop(statement, signer))


def revoke(ledger: Ledger, people: People, bundle: Bundle, *, signer: Signer, reason: str) -> Approval:
    """Take an approval back for good: what serves it goes back to the approved release before it."""
    statement = draft(ledger, people, bundle, key=text_of(signer), kind="revoked", reason=reason)
    return submit(ledger, people, bundle, envelop(statement, signer))


@dataclass(frozen=True)
class _Desk:
    """A bundle before somebody who wants to state something about it, while the ledger's pen is held."""

    page: Page
    who: Authority
    bundle: Bundle
    approval: Approval

    @classmethod
    def at(cls, page: Page, people: People, bundle: Bundle) -> "_Desk":
        who = authority(page.entries, people)
        return cls(page, who, bundle, standing(page.entries, who, bundle, now_us=_now(None)))

    def opened(self, envelope: dict[str, Any]) -> tuple[Statement, Person]:
        """What was stated, proven to be by whom it says, about this bundle, just now, and of this ledger's past."""
        try:
            claim = peek(envelope)
            person = self.who.persons.get(claim.person)
            if person is None:
                self.refuse(self.who.unreviewed or "the signer is nobody in the reviewed people file")
            statement = open_envelope(envelope, person.public_key)
        except SignatureInvalid as error:
            self.refuse(str(error))
        past = self.page.entries[: statement.seen_number]
        if len(past) != statement.seen_number or (past and past[-1].hash != statement.seen_hash):
            self.refuse(f"{person.name} saw another ledger")
        if (statement.subject, statement.digest) != (self.bundle.subject, self.bundle.digest):
            self.refuse(f"{person.name} signed a statement about {statement.subject} {statement.digest[:12]}")
        if abs(_now(None) - statement.at_us) > LONGEST_DRAFT_US:
            self.refuse(f"{person.name} signed a statement that was drafted more than ten minutes ago")
        return statement, person

    def role_of(self, person: Person) -> str:
        """The role in which somebody signed before, or else one that is waited for."""
        if before := self._signed(person.name):
            return before.role
        return next((role for role in self.approval.waiting_for if role in person.roles), person.roles[0])

    def is_stated(self, statement: Statement) -> bool:
        if statement.kind == "approved":
            return self._signed(statement.person) is not None and not self._is_renewal(statement)
        return self.approval.state in ("rejected", "revoked")

    def _signed(self, person: str) -> Statement | None:
        return next((s for s in self.approval.signed_by if s.person == person), None)

    def _is_renewal(self, statement: Statement) -> bool:
        before = self._signed(statement.person)
        return before is not None and renews(statement, before, self.bundle)

    def check(self, statement: Statement, person: Person) -> None:
        """Raise unless this person may state this now; a person may always end what others started."""
        if statement.kind not in SIGNED:
            self.refuse(f"{statement.kind!r} is nothing that is stated about a bundle")
        if statement.kind != "approved" and not statement.reason.strip():
            raise ValueError(f"reason is {statement.reason!r}; a bundle is {statement.kind} with a reason")
        if statement.kind == "approved" and not self.is_stated(statement) and (why := self._why_not(statement, person)):
            self.refuse(f"{person.name} as {statement.role}: {why}")

    def _why_not(self, statement: Statement, person: Person) -> str:
        if self.bundle.kind != "hotfix" and fold(person.name) in involved(self.bundle):
            return "started the run or is named in its lineage, and cannot approve it"
        if statement.role not in person.roles:
            return f"has the roles {person.roles}"
        if self.approval.state in ("rejected", "revoked"):
            return self.approval.reason
        waiting_for = (
            () if self.approval.state == "expired" or self._is_renewal(statement) else self.approval.waiting_for
        )
        if waiting_for and statement.role not in waiting_for:
            return f"the signature is not waited for; {self.approval.reason}"
        return ""

    def refuse(self, why: str) -> NoReturn:
        record(self.page, self.bundle.subject, self.bundle.digest, why)
        raise SigningRefused(f"{self.bundle.subject} {self.bundle.digest[:12]}: {why}")


def _now(now_us: int | None) -> int:
    return time.time_ns() // 1000 if now_us is None else now_us
