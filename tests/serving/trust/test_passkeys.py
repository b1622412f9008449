"""A passkey's assertion counts as a signature of exactly one statement, on one site, by a verified person."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import UnverifiedSignatureError

from serving.approval import SigningRefused, draft, require_servable, sign, status, submit
from serving.bundle import Bundle
from serving.keys import public_key
from serving.passkeys import Passkey, challenge_of, from_base64url, signature_of, to_base64url
from serving.people import People, Person, propose
from serving.statement import Statement, enclose, signed_bytes
from tests.serving.trust.authenticator import Authenticator
from tests.serving.trust.conftest import Office


@pytest.fixture
def mia(office: Office) -> Authenticator:
    """A policy person whose only key is a passkey."""
    authenticator = Authenticator()
    mia = Person(name="mia", roles=["policy"], public_key=authenticator.text)
    office.people = People(people=[*office.people.people, mia])
    for name in ("ada", "bob"):
        propose(office.ledger, office.people, signer=office.signers[name])
    return authenticator


def signed(statement: Statement, authenticator: Authenticator, **how: Any) -> dict[str, Any]:
    payload = statement.to_bytes()
    return enclose(payload, signature_of(authenticator.text, authenticator.answer(signed_bytes(payload), **how)))


def test_a_passkey_approves_together_with_a_key_file(office: Office, release: Bundle, mia: Authenticator) -> None:
    sign(office.ledger, office.people, release, signer=office.signers["ada"])
    statement = draft(office.ledger, office.people, release, key=mia.text)

    approval = submit(office.ledger, office.people, release, signed(statement, mia))

    assert approval.state == "approved"
    assert require_servable(office.reopen(), office.people, release.path) == release


def test_submitting_the_same_assertion_again_is_stating_once(
    office: Office, release: Bundle, mia: Authenticator
) -> None:
    envelope = signed(draft(office.ledger, office.people, release, key=mia.text), mia)
    submit(office.ledger, office.people, release, envelope)
    num_entries = len(office.ledger.entries())

    submit(office.ledger, office.people, release, envelope)

    assert len(office.ledger.entries()) == num_entries


def test_a_passkey_rejects_for_good(office: Office, release: Bundle, mia: Authenticator) -> None:
    statement = draft(office.ledger, office.people, release, key=mia.text, kind="rejected", reason="blocks pharmacies")

    submit(office.ledger, office.people, release, signed(statement, mia))

    assert status(office.ledger, office.people, release).reason == "rejected by mia: blocks pharmacies"


@pytest.mark.bypass
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"origin": "https://mews.example.com.evil.com"}, "another site in the address bar"),
        ({"origin": "http://mews.example.com"}, "a page that anybody on the way can change"),
        ({"site": "evil.com"}, "an assertion for another site"),
        ({"flags": 0b001}, "a key that was touched by nobody who was verified"),
        ({"flags": 0b100}, "nobody was present"),
        ({"kind": "webauthn.create"}, "the making of a passkey"),
    ],
)
def test_an_assertion_of_another_kind_is_refused_and_kept(
    office: Office, release: Bundle, mia: Authenticator, how: dict[str, Any], why: str
) -> None:
    statement = draft(office.ledger, office.people, release, key=mia.text)

    with pytest.raises(SigningRefused, match="does not verify"):
        submit(office.ledger, office.people, release, signed(statement, mia, **how))

    assert office.ledger.entries()[-1].kind == "refused", why


@pytest.mark.bypass
def test_an_assertion_over_another_digest_is_refused(office: Office, release: Bundle, mia: Authenticator) -> None:
    other = office.seal(b"other weights")
    envelope = signed(draft(office.ledger, office.people, other, key=mia.text), mia)

    with pytest.raises(SigningRefused, match="signed a statement about release/payment_fraud"):
        submit(office.ledger, office.people, release, envelope)


@pytest.mark.bypass
def test_an_assertion_moved_to_another_statement_is_refused(
    office: Office, release: Bundle, mia: Authenticator
) -> None:
    rejection = draft(office.ledger, office.people, release, key=mia.text, kind="rejected", reason="no")
    approval = draft(office.ledger, office.people, release, key=mia.text)
    moved = enclose(approval.to_bytes(), signature_of(mia.text, mia.answer(signed_bytes(rejection.to_bytes()))))

    with pytest.raises(SigningRefused, match="does not verify"):
        submit(office.ledger, office.people, release, moved)


@pytest.mark.bypass
def test_another_persons_passkey_is_refused(office: Office, release: Bundle, mia: Authenticator) -> None:
    statement = draft(office.ledger, office.people, release, key=mia.text)
    thief = Authenticator()
    payload = statement.to_bytes()
    envelope = enclose(payload, signature_of(mia.text, thief.answer(signed_bytes(payload))))

    with pytest.raises(SigningRefused, match="does not verify"):
        submit(office.ledger, office.people, release, envelope)


@pytest.mark.bypass
def test_a_statement_that_somebody_kept_is_refused(office: Office, release: Bundle, mia: Authenticator) -> None:
    statement = draft(office.ledger, office.people, release, key=mia.text)
    old = statement.model_copy(update={"at_us": statement.at_us - 601_000_000})

    with pytest.raises(SigningRefused, match="ten minutes ago"):
        submit(office.ledger, office.people, release, signed(old, mia))


@pytest.mark.bypass
def test_a_statement_of_another_ledger_is_refused(office: Office, release: Bundle, mia: Authenticator) -> None:
    statement = draft(office.ledger, office.people, release, key=mia.text)
    other = statement.model_copy(update={"seen_hash": "f" * 64})

    with pytest.raises(SigningRefused, match="saw another ledger"):
        submit(office.ledger, office.people, release, signed(other, mia))


@pytest.mark.bypass
def test_a_passkey_that_nobody_reviewed_signs_nothing(office: Office, release: Bundle) -> None:
    slipped = Authenticator()
    person = Person(name="mia", roles=["policy"], public_key=slipped.text)
    file = People(people=[*office.people.people, person])

    with pytest.raises(SigningRefused, match="is not the reviewed"):
        draft(office.ledger, file, release, key=slipped.text)


def test_the_maintained_library_agrees_with_each_verdict() -> None:
    webauthn = pytest.importorskip("webauthn")
    from cbor2 import dumps
    from webauthn.helpers.exceptions import InvalidAuthenticationResponse

    authenticator = Authenticator()
    numbers = authenticator.private.public_key().public_numbers()
    cose = dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})
    for how, is_valid in [
        ({}, True),
        ({"flags": 1}, False),
        ({"site": "evil.com"}, False),
        ({"origin": "https://a.b"}, False),
    ]:
        answer = authenticator.answer(b"statement", **how)
        credential = {"id": to_base64url(b"c"), "rawId": to_base64url(b"c"), "type": "public-key", "response": answer}

        def by_library(credential: dict[str, Any] = credential) -> None:
            webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge_of(b"statement"),
                expected_rp_id="mews.example.com",
                expected_origin="https://mews.example.com",
                credential_public_key=cose,
                credential_current_sign_count=0,
                require_user_verification=True,
            )

        def by_us(answer: dict[str, str] = answer) -> None:
            public_key(authenticator.text).verify_signature(signature_of(authenticator.text, answer), b"statement")

        if is_valid:
            by_library()
            by_us()
        else:
            with pytest.raises(InvalidAuthenticationResponse):
                by_library()
            with pytest.raises(UnverifiedSignatureError):
                by_us()


def test_a_passkey_is_one_line_that_reads_back() -> None:
    text = Authenticator().text

    assert Passkey.parse(text).text == text
    assert from_base64url(to_base64url(b"\xff\xfe")) == b"\xff\xfe"
    assert Passkey("localhost", "abc", Ed25519PrivateKey.generate().public_key()).text.startswith("passkey:localhost:")


@pytest.mark.parametrize("text", ["passkey:", "passkey:site:abc:AAAA", "passkey:site:a/b:AAAA"])
def test_what_is_no_passkey_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="public_key is 'passkey:"):
        public_key(text)


def test_a_curve_that_no_passkey_uses_is_refused() -> None:
    text = Passkey("site", "abc", generate_private_key(SECP384R1()).public_key()).text

    with pytest.raises(ValueError, match="ES256"):
        public_key(text)
