"""Which bundle is the newest is what the ledger says, and what is no bundle hides no other."""

import os

import pytest

from serving.admin import Home
from serving.bundle import MANIFEST
from serving.passkey_login import Logins
from serving.release import newest, record_sealed, sealed_bundles
from serving.sealed_files import BundleAltered
from tests.serving.trust.conftest import Office


def test_the_ledger_and_no_file_time_says_which_is_the_newest(office: Office) -> None:
    sealed = [office.seal(weights) for weights in (b"first", b"second", b"third")]
    for bundle in sealed[1:] + sealed:
        record_sealed(office.ledger, bundle, by="tom")

    for path in (sealed[1].path / MANIFEST, sealed[1].path):
        os.utime(path)
    found = newest(office.shelves.releases, "payment_fraud", office.ledger.entries())

    assert found == sealed[0]
    assert [e.kind for e in office.ledger.entries()].count("sealed") == len(sealed)


def test_what_is_no_bundle_hides_no_other(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    sound, altered = office.seal(b"sound"), office.seal(b"altered")
    (sound.path.parent / "notes.txt").write_text("a stray file")
    (altered.path / MANIFEST).chmod(0o644)
    (altered.path / MANIFEST).write_bytes(altered.manifest + b" ")

    assert sealed_bundles(office.shelves.releases, office.ledger.entries()) == [sound]
    assert Home(office.root, office.ledger, Logins(office.root)).bundles() == [sound]
    assert altered.digest in caplog.text
    with pytest.raises(BundleAltered):
        newest(office.shelves.releases, "payment_fraud", office.ledger.entries())
