"""Who may sign: the reviewed file of people, their roles and public keys.

A line in a file proves no review. So a version of the file counts from the ledger's entry with which two people of the
version before it signed its digest (the first version is written when the ledger is begun). A person counts who stands
the same in the reviewed version and in the file: a key slipped into the file gives nothing, and the approvals of a
person taken out of it are out at once. The next version is signed by people of the one in force, whatever the file says
(else nobody could sign a key of their own anew): who left has a say in it until two people signed that they left.
"""

import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from securesystemslib.signer import Signer

from serving.canonical import digest_of
from serving.keys import public_bytes, public_key, text_of
from serving.ledger import Entry, Ledger
from serving.statement import SignatureInvalid, Statement, envelop, open_envelope, peek
from training.contract_file import read_contract
from training.policy import Contract

SUBJECT = "people"
_NUM_REVIEWERS = 2


class Person(Contract):
    """Somebody who signs, with one key."""

    name: str
    roles: list[str]
    public_key: str

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not self.name.strip():
            raise ValueError(f"person.name is {self.name!r}; it must not be empty")
        if not self.roles:
            raise ValueError(f"person.roles of {self.name!r} is empty; it must name at least one role")
        public_key(self.public_key)
        return self


class People(Contract):
    """The file: people, the roles that must sign, and for how many days a signature counts."""

    people: list[Person]
    required_roles: list[str] = ["ml", "policy"]
    expires_days: int = 90

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        unique: dict[str, list[object]] = {
            "name": [fold(p.name) for p in self.people],
            "public_key": [public_bytes(p.public_key) for p in self.people],
        }
        for field, values in unique.items():
            if same := [p.name for p, value in zip(self.people, values, strict=True) if values.count(value) > 1]:
                raise ValueError(f"people.{field} is there twice, for {same}; one person has one name and one key")
        if len(self.people) < _NUM_REVIEWERS:
            raise ValueError(f"people has {len(self.people)}; at least {_NUM_REVIEWERS} are needed to review a change")
        if not self.required_roles or len(set(self.required_roles)) != len(self.required_roles):
            raise ValueError(f"required_roles is {self.required_roles}; it must name each role once and at least one")
        if nobody := set(self.required_roles) - {role for p in self.people for role in p.roles}:
            raise ValueError(f"required_roles has {sorted(nobody)}, but nobody in people has that role")
        if not 1 <= self.expires_days <= 3650:
            raise ValueError(f"expires_days is {self.expires_days}; it must lie in 1..3650")
        return self

    @property
    def digest(self) -> str:
        """What reviewers sign."""
        return digest_of(self.model_dump())


def fold(name: str) -> str:
    """Names are compared without case, outer spaces or coding of accents: `Ada ` cannot approve what `ada` started."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def load_people(path: Path) -> People:
    """Read people.yaml; raises ValueError naming file, line, field, value and limit."""
    return read_contract(path, People)


@dataclass(frozen=True)
class Authority:
    """Who counts now, who ever counted, and what the file says that nobody reviewed."""

    persons: Mapping[str, Person]
    required_roles: Sequence[str]
    expires_days: int
    ever: Sequence[Person]
    unreviewed: str = ""

    def owner(self, key_text: str) -> Person | None:
        """Whose key this is."""
        return next((p for p in self.persons.values() if p.public_key == key_text), None)


def begin(ledger: Ledger, people: People) -> Entry:
    """Write the first version, before which nothing can be signed; beginning again with the same changes nothing."""
    with ledger.writing() as page:
        for entry in page.entries:
            if entry.kind == "people_begun" and People.model_validate(entry.body["people"]) == people:
                return entry
            if entry.kind == "people_begun":
                raise ValueError(f"the ledger was begun with other people in entry {entry.number}; propose a change")
        return page.append("people_begun", {"digest": people.digest, "people": people.model_dump()})


def propose(ledger: Ledger, people: People, *, signer: Signer) -> bool:
    """Sign a changed people file as somebody of the version in force; true when that put it in force."""
    with ledger.writing() as page:
        *_, (_, current) = reviewed(page.entries)
        person = next((p for p in current.people if p.public_key == text_of(signer)), None)
        if person is None:
            raise ValueError("the key belongs to nobody in the version of people.yaml that is in force")
        statement = Statement(
            kind="people",
            subject=SUBJECT,
            digest=people.digest,
            person=person.name,
            role=person.roles[0],
            at_us=time.time_ns() // 1000,
            seen_number=page.ledger.head.number,
            seen_hash=page.ledger.head.hash,
        )
        content = {"digest": people.digest, "people": people.model_dump()}
        page.append("people", content | {"envelope": envelop(statement, signer)})
        *_, (_, latest) = reviewed(page.entries)
        return latest == people


def changes(entries: Sequence[Entry], file: People) -> list[str]:
    """How the file differs from the version in force, one sentence per change: what a reviewer signs."""
    versions = [version for _, version in reviewed(entries)]
    before = {p.name: p for p in versions[-1].people} if versions else {}
    after = {p.name: p for p in file.people}
    found = [f"adds {after[name].name} as {', '.join(after[name].roles)}" for name in after if name not in before]
    found += [f"takes out {name}" for name in before if name not in after]
    for name in (n for n in after if n in before):
        old, new = before[name], after[name]
        if old.roles != new.roles:
            found.append(f"changes the roles of {name} from {', '.join(old.roles)} to {', '.join(new.roles)}")
        if old.public_key != new.public_key:
            found.append(f"changes the key of {name}")
    for field in ("required_roles", "expires_days"):
        old_value, new_value = (getattr(v, field) for v in (versions[-1] if versions else file, file))
        if old_value != new_value:
            found.append(f"changes {field} from {old_value} to {new_value}")
    return found


def authority(entries: Sequence[Entry], file: People) -> Authority:
    """Who counts, from the reviewed versions in the ledger narrowed by the file."""
    versions = [version for _, version in reviewed(entries)]
    if not versions:
        return Authority({}, file.required_roles, file.expires_days, [], "no version of the people file was reviewed")
    last, here = versions[-1], {p.name: p for p in file.people}
    persons = {p.name: p for p in last.people if here.get(p.name) == p}
    ever = [person for version in versions for person in version.people]
    unreviewed = "" if file == last else f"people.yaml ({file.digest[:12]}) is not the reviewed {last.digest[:12]}"
    return Authority(persons, last.required_roles, last.expires_days, ever, unreviewed)


def reviewed(entries: Sequence[Entry]) -> Iterator[tuple[Entry, People]]:
    """Each version of the file with the entry that put it in force."""
    current: People | None = None
    since, signers = 0, dict[str, set[str]]()
    for entry in entries:
        if entry.kind == "people_begun" and current is None:
            current, since = People.model_validate(entry.body["people"]), entry.number
            yield entry, current
        elif entry.kind == "people" and current is not None and (name := _reviewer(entries, entry, current, since)):
            agreed = signers.setdefault(entry.body["digest"], set())
            agreed.add(name)
            if len(agreed) == _NUM_REVIEWERS:
                current, since, signers = People.model_validate(entry.body["people"]), entry.number, {}
                yield entry, current


def _reviewer(entries: Sequence[Entry], entry: Entry, current: People, since: int) -> str | None:
    """Who signed a change, if a person of the current version did, knowing that version."""
    try:
        statement = proven(entries, entry, current.people)
        change = People.model_validate(entry.body["people"])
    except (SignatureInvalid, ValidationError):
        return None
    is_this = statement.subject == SUBJECT and statement.digest == change.digest == entry.body["digest"]
    return statement.person if is_this and statement.seen_number >= since else None


def proven(entries: Sequence[Entry], entry: Entry, persons: Sequence[Person]) -> Statement:
    """The statement of a signed entry, proven to be of one of these persons about what the entry says it is about.

    Raises SignatureInvalid also for a statement whose signer saw another past than this ledger's.
    """
    claim = peek(_envelope(entry))
    keys = [p.public_key for p in persons if p.name == claim.person]
    statement = _first_proven(_envelope(entry), keys)
    if (statement.kind, statement.digest) != (entry.kind, entry.body.get("digest")):
        raise SignatureInvalid(f"entry {entry.number} shows a signature of something else")
    if statement.seen_number >= entry.number:
        raise SignatureInvalid(f"entry {entry.number} was signed by somebody who saw entries after it")
    if statement.seen_number and entries[statement.seen_number - 1].hash != statement.seen_hash:
        raise SignatureInvalid(f"entry {entry.number} was signed by somebody who saw another ledger")
    return statement


def _envelope(entry: Entry) -> dict[str, Any]:
    found = entry.body.get("envelope")
    return found if isinstance(found, dict) else {}


def _first_proven(envelope: dict[str, Any], keys: Sequence[str]) -> Statement:
    for key in keys:
        try:
            return open_envelope(envelope, key)
        except SignatureInvalid:
            continue
    raise SignatureInvalid("no key of this person verifies the signature")
