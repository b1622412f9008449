"""Who may sign: one key is one person, however it is written, and whoever left has no say."""

import base64
import json
import unicodedata

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from serving import evidence_check
from serving.approval import SigningRefused, sign
from serving.keys import create_key, load_key, public_key
from serving.passkeys import Passkey
from serving.people import People, Person, propose
from serving.release import seal_release
from serving.statement import Statement, envelop
from tests.serving.trust.conftest import Office


@pytest.mark.bypass
def test_one_key_in_two_spellings_is_no_second_person(office: Office) -> None:
    public = create_key(office.root / "mallory.pem", None)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("ed25519:")))
    spellings = [public, *(Passkey("site", name, key).text for name in ("abc", "def"))]
    once = [Person(name=f"mallory{i}", roles=["ml", "policy"], public_key=text) for i, text in enumerate(spellings)]

    for pair in (once[:2], once[1:]):
        with pytest.raises(ValueError, match="public_key is there twice"):
            People(people=pair)
    with pytest.raises(ValueError, match="it must be 'ed25519:' and 32 bytes"):
        public_key(public.removeprefix("ed25519:"))


@pytest.mark.bypass
def test_a_maker_whose_accents_are_coded_otherwise_cannot_approve(office: Office) -> None:
    coded = {form: unicodedata.normalize(form, "José") for form in ("NFC", "NFD")}
    public = create_key(office.root / "jose.pem", None)
    people = People(people=[*office.people.people, Person(name=coded["NFC"], roles=["ml"], public_key=public)])
    for name in ("ada", "bob"):
        propose(office.ledger, people, signer=office.signers[name])
    release = seal_release(office.run_dir, office.shelves.releases, lineage={"started_by": coded["NFD"]})
    seen = office.ledger.head
    said = {"kind": "approved", "subject": release.subject, "digest": release.digest, "person": coded["NFC"]}
    statement = Statement(**said, role="ml", at_us=1, seen_number=seen.number, seen_hash=seen.hash)
    envelope = envelop(statement, load_key(office.root / "jose.pem", None))

    with pytest.raises(SigningRefused, match="started the run"):
        sign(office.ledger, people, release, signer=load_key(office.root / "jose.pem", None))
    office.ledger.append("approved", {"digest": release.digest, "envelope": envelope})
    entries = [json.loads(entry.line) for entry in office.ledger.entries()]
    claim = {"subject": release.subject, "digest": release.digest, "state": "waiting"}
    found = list(evidence_check._approvals(entries, claim, dict(release.facts), at_us=2))
    assert "who made it may not approve it" in found[0]
