"""Passkeys as keys of people: a WebAuthn assertion stands as a signature where its challenge is what was signed.

An authenticator does not sign a statement; it signs its own data and the hash of the browser's client data, which holds
a challenge. The challenge is the SHA-256 of the bytes that DSSE signs, so one assertion proves one statement. Checked
as W3C Web Authentication Level 3, section 7.2 says, without a library, because whoever serves a release or receives its
evidence verifies signatures offline. The counter of section 7.2 is not kept: a statement can only be stated once.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature

PREFIX = "passkey:"
USER_PRESENT_AND_VERIFIED = 0b101
_TEXT = re.compile(r"passkey:(?P<site>[a-z0-9.-]+):(?P<credential>[A-Za-z0-9_-]+):(?P<key>[A-Za-z0-9+/=]+)\Z")
_SHORTEST = 37  # authenticator data: 32 bytes of the site's hash, 1 of flags, 4 of a counter


def to_base64url(content: bytes) -> str:
    """Base64 as WebAuthn writes it."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Read base64 as WebAuthn writes it; raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


@dataclass(frozen=True)
class Passkey:
    """A public key with the site that it is bound to and the id under which its authenticator knows it."""

    site: str
    credential: str
    public: EllipticCurvePublicKey | Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a line of people.yaml; raises ValueError naming it."""
        if (found := _TEXT.match(text)) is None:
            raise ValueError(f"public_key is {text!r}; a passkey is '{PREFIX}SITE:CREDENTIAL:KEY'")
        try:
            public = load_der_public_key(base64.b64decode(found["key"], validate=True))
        except ValueError as error:
            raise ValueError(f"public_key is {text!r}; its last part must be a public key, DER in base64") from error
        return cls(found["site"], found["credential"], _supported(public))

    @property
    def text(self) -> str:
        """The line of people.yaml."""
        der = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"{PREFIX}{self.site}:{self.credential}:{base64.b64encode(der).decode()}"

    def verify(self, data: bytes, *, authenticator: bytes, client: bytes, signature: bytes) -> None:
        """Raise UnverifiedSignatureError unless the person of this passkey, here and now verified, signed `data`."""
        _require(_is_about(client, data, self.site), "the client data is about something else")
        _require(authenticator[:32] == hashlib.sha256(self.site.encode()).digest(), "it was given on another site")
        flags = authenticator[32] if len(authenticator) >= _SHORTEST else 0
        _require(flags & USER_PRESENT_AND_VERIFIED == USER_PRESENT_AND_VERIFIED, "the user was not verified")
        signed = authenticator + hashlib.sha256(client).digest()
        try:
            if isinstance(self.public, Ed25519PublicKey):
                self.public.verify(signature, signed)
            else:
                self.public.verify(signature, signed, ECDSA(SHA256()))
        except InvalidSignature as error:
            raise UnverifiedSignatureError("the signature is of another passkey or of something else") from error


class PasskeyKey(Key):
    """A passkey where securesystemslib expects a key: it verifies the signatures of an envelope."""

    def __init__(self, text: str) -> None:
        self.passkey = Passkey.parse(text)
        super().__init__(keyid_of(text), "webauthn", "webauthn", {"public": text})

    @classmethod
    def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> "PasskeyKey":
        """Not needed: keys are read from people.yaml."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The key as JSON."""
        return self._to_dict()

    def verify_signature(self, signature: Signature, data: bytes) -> None:
        """Raise UnverifiedSignatureError unless this signature is an assertion about these bytes."""
        try:
            parts = {
                name: from_base64url(signature.unrecognized_fields[name])
                for name in ("authenticatorData", "clientDataJSON")
            }
            raw = bytes.fromhex(signature.signature)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnverifiedSignatureError("this is no WebAuthn assertion") from error
        self.passkey.verify(
            data, authenticator=parts["authenticatorData"], client=parts["clientDataJSON"], signature=raw
        )


def keyid_of(text: str) -> str:
    """The id of a key in an envelope."""
    return hashlib.sha256(text.encode()).hexdigest()


def challenge_of(data: bytes) -> bytes:
    """What an authenticator is asked to sign so that its assertion proves these bytes."""
    return hashlib.sha256(data).digest()


def signature_of(text: str, response: dict[str, str]) -> Signature:
    """The signature for an envelope in what a browser answered: base64url of its three parts; raises ValueError."""
    if missing := {"authenticatorData", "clientDataJSON", "signature"} - response.keys():
        raise ValueError(f"response lacks {', '.join(sorted(missing))}")
    fields = {name: response[name] for name in ("authenticatorData", "clientDataJSON")}
    return Signature(keyid_of(text), from_base64url(response["signature"]).hex(), fields)


def _is_about(client: bytes, data: bytes, site: str) -> bool:
    try:
        said = json.loads(client)
        origin = urlsplit(said["origin"])
        kind, challenge = said["type"], from_base64url(said["challenge"])
    except (ValueError, KeyError, TypeError):
        return False
    is_secure = origin.scheme == "https" or origin.hostname == "localhost"
    is_site = origin.hostname == site or str(origin.hostname).endswith(f".{site}")
    return kind == "webauthn.get" and challenge == challenge_of(data) and is_secure and is_site


def _supported(public: object) -> EllipticCurvePublicKey | Ed25519PublicKey:
    if isinstance(public, Ed25519PublicKey) or (
        isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1)
    ):
        return public
    raise ValueError(f"public_key is {type(public).__name__}; a passkey signs with Ed25519 or ES256 (P-256)")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise UnverifiedSignatureError(what)
