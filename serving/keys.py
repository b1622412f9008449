"""Keys of people: Ed25519 ones whose private half is an encrypted PEM file, or passkeys; public ones as one line."""

import base64
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from serving import passkeys

_PREFIX = "ed25519:"


def create_key(path: Path, passphrase: str | None) -> str:
    """Make a key pair; the private half goes to a new file of mode 0600, the public half is returned as text."""
    private = Ed25519PrivateKey.generate()
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return public_text(private.public_key())


def is_encrypted(path: Path) -> bool:
    """Whether a private key needs a passphrase."""
    return b"ENCRYPTED" in path.read_bytes().partition(b"\n")[0]


def load_key(path: Path, passphrase: str | None) -> CryptoSigner:
    """Open a private key; raises ValueError where the passphrase is wrong or the key is not Ed25519."""
    try:
        private = load_pem_private_key(path.read_bytes(), None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError) as error:
        raise ValueError(f"key {path.name} cannot be opened: wrong passphrase or not a PEM key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"key {path.name} is {type(private).__name__}; only Ed25519 keys sign")
    return CryptoSigner(private)


def public_text(key: Ed25519PublicKey) -> str:
    """The public half of a key as people.yaml holds it."""
    return _PREFIX + base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def public_key(text: str) -> Key:
    """Read a public key from people.yaml; raises ValueError naming the text."""
    if text.startswith(passkeys.PREFIX):
        return passkeys.PasskeyKey(text)
    return SSlibKey.from_crypto(_ed25519(text))


def public_bytes(text: str) -> bytes:
    """The key that a text of people.yaml spells: equal bytes are one key, however it is written or used."""
    public = passkeys.Passkey.parse(text).public if text.startswith(passkeys.PREFIX) else _ed25519(text)
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def text_of(signer: Signer) -> str:
    """The public half of a signer's key as people.yaml holds it."""
    return public_text(Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key.keyval["public"])))


def _ed25519(text: str) -> Ed25519PublicKey:
    wrong = f"public_key is {text!r}; it must be {_PREFIX!r} and 32 bytes in base64"
    if not text.startswith(_PREFIX):
        raise ValueError(wrong)
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(_PREFIX), validate=True))
    except ValueError as error:
        raise ValueError(wrong) from error
