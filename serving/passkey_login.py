"""Making a passkey and logging in with one, in the browser; who may sign is still people.yaml and nothing else."""

import hmac
import json
import secrets
import time
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.exceptions import UnverifiedSignatureError

from serving.keys import public_key
from serving.passkeys import PREFIX, Passkey, challenge_of, from_base64url, signature_of, to_base64url
from serving.people import Person

SESSION_S = 3600
_CHALLENGE_S = 300
_MOST_CHALLENGES = 1000
_LOGIN = b"mews login "  # no statement begins so: an assertion that logs in approves nothing


class LoginRefused(Exception):
    """The assertion belongs to nobody who may log in, or the session is over."""


class Logins:
    """Challenges that wait for an answer, and sessions; both end with this process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._waiting: dict[str, tuple[bytes, float]] = {}

    def challenge(self, purpose: bytes = _LOGIN) -> str:
        """A challenge that can be answered once within five minutes, in base64url."""
        data, now = purpose + secrets.token_bytes(32), time.monotonic()
        self._waiting = {c: (d, t) for c, (d, t) in self._waiting.items() if now - t < _CHALLENGE_S}
        while len(self._waiting) >= _MOST_CHALLENGES:
            self._waiting.pop(next(iter(self._waiting)))
        challenge = to_base64url(challenge_of(data))
        self._waiting[challenge] = data, now
        return challenge

    def take(self, challenge: str) -> bytes:
        """What a challenge was made of; it cannot be taken again."""
        data, since = self._waiting.pop(challenge, (b"", -_CHALLENGE_S))
        if time.monotonic() - since >= _CHALLENGE_S:
            raise LoginRefused("this challenge was never given, was answered, or is too old")
        return data

    def login(self, people: list[Person], credential: str, response: dict[str, str]) -> str:
        """The session of the person whose passkey answered a challenge; raises LoginRefused."""
        owner = next((p for p in people if credential_of(p) == credential), None)
        if owner is None:
            raise LoginRefused("this passkey belongs to nobody in the reviewed people file")
        try:
            data = self.take(json.loads(from_base64url(response["clientDataJSON"]))["challenge"])
            public_key(owner.public_key).verify_signature(signature_of(owner.public_key, response), data)
        except (UnverifiedSignatureError, ValueError, KeyError, TypeError) as error:
            raise LoginRefused("the passkey did not answer this challenge on this site") from error
        return self._session(owner.public_key)

    def _session(self, key: str) -> str:
        body = to_base64url(json.dumps([key, time.time() + SESSION_S]).encode())
        return f"{body}.{self._mac(body)}"

    def key_of(self, session: str) -> str:
        """The public key of who logged in; raises LoginRefused."""
        body, _, mac = session.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(body).encode()):
            raise LoginRefused("log in first")
        key, until = json.loads(from_base64url(body))
        if time.time() > until:
            raise LoginRefused("the session is over; log in again")
        return str(key)

    def _mac(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), sha256).hexdigest()


def credential_of(person: Person) -> str | None:
    """The id under which a person's authenticator knows their passkey."""
    return Passkey.parse(person.public_key).credential if person.public_key.startswith(PREFIX) else None


def enrolled(credential: dict[str, Any], *, challenge: str, site: str, origin: str) -> str:
    """The line for people.yaml of a passkey that a browser made just now; raises ValueError.

    The registration is verified by the library `webauthn`.
    """
    from webauthn import verify_registration_response  # the extra `passkey`
    from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography
    from webauthn.helpers.cose import COSEAlgorithmIdentifier
    from webauthn.helpers.exceptions import WebAuthnException

    try:
        found = verify_registration_response(
            credential=credential,
            expected_challenge=from_base64url(challenge),
            expected_rp_id=site,
            expected_origin=origin,
            require_user_verification=True,
            supported_pub_key_algs=[COSEAlgorithmIdentifier.EDDSA, COSEAlgorithmIdentifier.ECDSA_SHA_256],
        )
    except WebAuthnException as error:
        raise ValueError(f"this is no passkey of this site: {error}") from error
    public = decoded_public_key_to_cryptography(decode_credential_public_key(found.credential_public_key))
    if not isinstance(public, EllipticCurvePublicKey | Ed25519PublicKey):
        raise ValueError("a passkey signs with Ed25519 or ES256 (P-256)")
    return Passkey(site, to_base64url(found.credential_id), public).text
