"""Keeps what people wrote, and who they are, out of the log's reach: texts are encrypted, ids can be keyed-hashed."""

import fcntl
import hashlib
import itertools
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from serving.durable import replace_file

_SALT, _NONCE = 16, 12  # bytes
_KEY = re.compile(rb"[\w-]{43}=")  # 32 bytes in base64


class Vault:
    """Encrypts texts and hashes ids with keys under MEWS_HOME/keys, made on first use.

    Without `texts.key` every text is unreadable; without `ids.key` no hash can be told to be of an id. Raises
    ValueError where one of these files holds no key.

    A token is base64 of salt, nonce and AES-GCM's ciphertext with its tag. Each process seals with a key of its own,
    derived from `texts.key` and a random salt, so that its nonces need only be counted: nothing is drawn for a text,
    and no two texts share key and nonce however many there are.
    """

    def __init__(self, keys: Path) -> None:
        self._texts_key = urlsafe_b64decode(key_in(keys / "texts.key"))
        self._digest_key = key_in(keys / "ids.key")
        self._begin()

    def _begin(self) -> None:
        """Take a new salt, from which nonces are counted anew."""
        self._pid, self._salt = os.getpid(), os.urandom(_SALT)
        self._cipher, self._numbers = _cipher(self._texts_key, self._salt), itertools.count()

    def seal(self, text: str) -> str:
        """Encrypt one text."""
        if os.getpid() != self._pid:  # a fork must not count on from where its parent does
            self._begin()
        nonce = next(self._numbers).to_bytes(_NONCE, "big")
        sealed = self._cipher.encrypt(nonce, text.encode(errors="surrogatepass"), None)
        return urlsafe_b64encode(self._salt + nonce + sealed).decode()

    def open(self, token: str) -> str | None:
        """The text, or None when its key is gone."""
        try:
            data = urlsafe_b64decode(token)
            nonce, sealed = data[_SALT : _SALT + _NONCE], data[_SALT + _NONCE :]
            return _cipher(self._texts_key, data[:_SALT]).decrypt(nonce, sealed, None).decode(errors="surrogatepass")
        except (InvalidTag, ValueError):  # sealed with another key, or no token
            return None

    def digest(self, value: str) -> str:
        """A keyed hash: equal for equal values, and nothing that could be guessed and tried without the key.

        BLAKE2b, since OpenSSL's HMAC hands the interpreter to another thread at each call.
        """
        content = value.encode(errors="surrogatepass")
        return hashlib.blake2b(content, key=self._digest_key, digest_size=32).hexdigest()


@lru_cache(64)
def _cipher(key: bytes, salt: bytes) -> AESGCM:
    """AES-256-GCM with the key that a salt makes of another."""
    return AESGCM(hashlib.blake2b(key=key, salt=salt, digest_size=32, person=b"mews texts").digest())


def key_in(path: Path) -> bytes:
    """A key as it lies in its file; whoever comes first makes it, under a lock, and there is never a second copy.

    Raises ValueError where the file holds no key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not path.exists():
                replace_file(path, urlsafe_b64encode(os.urandom(32)), mode=0o600)
    content = path.read_bytes()
    if not _KEY.fullmatch(content):
        raise ValueError(f"{path} holds {len(content)} bytes that are no key; a key is 32 bytes in base64")
    return content
