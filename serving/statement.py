"""What a person states about a digest: an in-toto Statement v1 in a DSSE envelope, signed with Ed25519.

in-toto and DSSE are open formats with maintained tools; of the signing tools measured, model-signing 1.1.1 has no
Ed25519, so the envelope comes from securesystemslib and the manifest is our own. A statement names the head of the
ledger that its signer saw: whoever rewrites the past must also forge every signature after it.
"""

import copy
import json
from typing import Any, Literal, Self

from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Signature, Signer

from serving.canonical import canonical
from serving.keys import public_key
from training.policy import Contract

StatementKind = Literal["approved", "rejected", "revoked", "people"]
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:mews:statement:v1"


class SignatureInvalid(Exception):
    """A signature does not prove what it is shown for."""


class Statement(Contract):
    """Who says what about which digest, when, and having seen which head of the ledger."""

    kind: StatementKind
    subject: str
    digest: str
    person: str
    role: str
    reason: str = ""
    at_us: int
    seen_number: int
    seen_hash: str

    def to_bytes(self) -> bytes:
        """The in-toto statement, in the canonical bytes that are signed."""
        subject = [{"name": self.subject, "digest": {"sha256": self.digest}}]
        predicate = self.model_dump(exclude={"subject", "digest"})
        return canonical(
            {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read an in-toto statement; raises SignatureInvalid where it is not one of ours, to the byte."""
        try:
            value = json.loads(content)
            [subject] = value["subject"]
            found = cls(subject=subject["name"], digest=subject["digest"]["sha256"], **value["predicate"])
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise SignatureInvalid("the signed content is not a statement") from error
        if found.to_bytes() != content:
            raise SignatureInvalid("the signed statement is not in its canonical form")
        return found


def envelop(statement: Statement, signer: Signer) -> dict[str, Any]:
    """Sign a statement: the envelope that goes to the ledger."""
    envelope = Envelope(statement.to_bytes(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return dict(envelope.to_dict())


def signed_bytes(payload: bytes) -> bytes:
    """What a signature over a statement's bytes is really over."""
    return bytes(Envelope(payload, PAYLOAD_TYPE, {}).pae())


def enclose(payload: bytes, signature: Signature) -> dict[str, Any]:
    """The envelope of a statement that was signed elsewhere."""
    return dict(Envelope(payload, PAYLOAD_TYPE, {signature.keyid: signature}).to_dict())


def open_envelope(envelope: dict[str, Any], key: str) -> Statement:
    """The statement in an envelope that a public key (as in people.yaml) signed; raises SignatureInvalid."""
    try:
        parsed = Envelope.from_dict(copy.deepcopy(envelope))  # it takes its argument apart
        parsed.verify([public_key(key)], 1)
    except (VerificationError, ValueError, KeyError, TypeError) as error:
        raise SignatureInvalid("the signature does not verify with this person's key") from error
    if parsed.payload_type != PAYLOAD_TYPE:
        raise SignatureInvalid(f"the signed content is {parsed.payload_type!r}, not {PAYLOAD_TYPE!r}")
    return Statement.from_bytes(bytes(parsed.payload))


def peek(envelope: dict[str, Any]) -> Statement:
    """What an envelope claims, before any signature is verified: only to choose the key to verify it with."""
    try:
        return Statement.from_bytes(Envelope.from_dict(copy.deepcopy(envelope)).payload)
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureInvalid("this is no DSSE envelope") from error
