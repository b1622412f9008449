"""A software authenticator: makes passkeys and assertions as a browser would hand them over."""

import hashlib
import json
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from serving.passkeys import Passkey, challenge_of, to_base64url

VERIFIED = 0b101


@dataclass
class Authenticator:
    """One passkey of one site."""

    site: str = "mews.example.com"
    private: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))

    @property
    def text(self) -> str:
        return Passkey(self.site, to_base64url(b"credential-1"), self.private.public_key()).text

    def answer(
        self,
        data: bytes,
        *,
        origin: str = "https://mews.example.com",
        flags: int = VERIFIED,
        kind: str = "webauthn.get",
        site: str = "",
    ) -> dict[str, str]:
        """Assert `data`: base64url of the three parts of a browser's response."""
        challenge = to_base64url(challenge_of(data))
        client = json.dumps({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False}).encode()
        authenticator = hashlib.sha256((site or self.site).encode()).digest() + bytes([flags]) + bytes(4)
        signature = self.private.sign(authenticator + hashlib.sha256(client).digest(), ECDSA(SHA256()))
        parts = {"authenticatorData": authenticator, "clientDataJSON": client, "signature": signature}
        return {name: to_base64url(part) for name, part in parts.items()}
