"""An entry that was signed by nobody changes nothing, neither for the service nor for who reads the evidence."""

from typing import Any

import pytest

from serving.approval import status
from serving.bundle import Bundle
from serving.evidence import write_evidence
from tests.serving.trust.conftest import Office

NO_ENVELOPES: list[Any] = [
    None,
    "a word",
    {"payload": "e30="},
    {"payload": "e", "payloadType": "x", "signatures": []},
    {"payload": "e30=", "payloadType": "x", "signatures": [5]},
    {"payload": "e30=", "payloadType": "x", "signatures": [{"sig": "", "keyid": []}]},
]


@pytest.mark.bypass
@pytest.mark.parametrize("envelope", NO_ENVELOPES)
def test_an_entry_without_an_envelope_changes_nothing(office: Office, release: Bundle, envelope: Any) -> None:
    office.approve(release)
    office.ledger.append("rejected", {"subject": release.subject, "digest": release.digest, "envelope": envelope})

    pack = write_evidence(office.ledger, office.people, release, None, target=office.root / "evidence")

    assert status(office.ledger, office.people, release).state == "approved"
    assert f"{release.subject} was approved when this was written" in pack.claims


def test_evidence_that_does_not_hold_leaves_no_folder(office: Office, release: Bundle) -> None:
    office.approve(release)
    office.ledger.append("promise_broken", {"digest": release.digest})

    with pytest.raises(KeyError):
        write_evidence(office.ledger, office.people, release, None, target=office.root / "evidence")

    assert not [path for path in office.root.rglob("*") if "staging" in path.name or path.name == "evidence"]
