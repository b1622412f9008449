"""Making a passkey and logging in with one, in the browser; who may sign is still people.yaml and nothing else."""

import hmac
import json
import secrets
import time
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.exceptions import UnverifiedSignatureError

from serving.keys import public_key
from serving.passkeys import PREFIX, Passkey, challenge_of, from_base64url, signature_of, to_base64url
from serving.people import Person
from serving.vault import key_in

SESSION_S = 3600
_CHALLENGE_S = 300
_SESSION = b"mews session "
_LOGIN = b"mews login "  # no statement begins so: an assertion that logs in approves nothing


class LoginRefused(Exception):
    """The assertion belongs to nobody who may log in, or the session is over."""


class Logins:
    """Challenges and sessions, as tokens with an end that any process over the same home gave and knows.

    The folder `logins` holds a file for each login of the last minutes, so that no process lets it in again.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def challenge(self, purpose: bytes = _LOGIN) -> dict[str, str]:
        """What to ask an authenticator, in base64url, and the token to be sent back with the answer."""
        token = self._token(purpose, secrets.token_hex(16), _CHALLENGE_S)
        return {"challenge": to_base64url(challenge_of(purpose + token.encode())), "token": token}

    def asked(self, token: str, purpose: bytes = _LOGIN) -> bytes:
        """What a challenge was made of; raises LoginRefused when it was never given or is too old."""
        self._read(purpose, token)
        return purpose + token.encode()

    def login(self, people: list[Person], credential: str, response: dict[str, str], *, token: str) -> str:
        """The session of the person whose passkey answered a challenge for the first time; raises LoginRefused."""
        owner = next((p for p in people if credential_of(p) == credential), None)
        if owner is None:
            raise LoginRefused("this passkey belongs to nobody in the reviewed people file")
        data = self.asked(token)
        try:
            public_key(owner.public_key).verify_signature(signature_of(owner.public_key, response), data)
        except (UnverifiedSignatureError, ValueError, TypeError) as error:
            raise LoginRefused("the passkey did not answer this challenge on this site") from error
        self._spend(data)
        return self._token(_SESSION, owner.public_key, SESSION_S)

    def _spend(self, data: bytes) -> None:
        """Take a challenge for good."""
        answered = self._home / "logins"
        answered.mkdir(exist_ok=True)
        for path in answered.iterdir():
            with suppress(FileNotFoundError):  # another process was faster
                if time.time() - path.stat().st_mtime > 2 * _CHALLENGE_S:
                    path.unlink()
        try:
            (answered / sha256(data).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            raise LoginRefused("this challenge was answered already") from None

    def key_of(self, session: str) -> str:
        """The public key of who logged in; raises LoginRefused."""
        return self._read(_SESSION, session)

    def _token(self, purpose: bytes, content: str, life_s: int) -> str:
        body = to_base64url(json.dumps([content, time.time() + life_s]).encode())
        return f"{body}.{self._mac(purpose, body)}"

    def _read(self, purpose: bytes, token: str) -> str:
        body, _, mac = token.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(purpose, body).encode()):
            raise LoginRefused("this was never given here; log in first")
        content, until = json.loads(from_base64url(body))
        if time.time() > until:
            raise LoginRefused("this is over; log in again")
        return str(content)

    def _mac(self, purpose: bytes, body: str) -> str:
        return hmac.new(self._secret, purpose + body.encode(), sha256).hexdigest()

    @cached_property
    def _secret(self) -> bytes:
        return key_in(self._home / "keys" / "logins.key")


def credential_of(person: Person) -> str | None:
    """The id under which a person's authenticator knows their passkey."""
    return Passkey.parse(person.public_key).credential if person.public_key.startswith(PREFIX) else None


def enrolled(credential: dict[str, Any], *, challenge: bytes, site: str, origin: str) -> str:
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
            expected_challenge=challenge,
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
