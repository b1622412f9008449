"""Keeps what people wrote, and who they are, out of the log's reach: texts are encrypted, ids can be keyed-hashed."""

import hashlib
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken


class Vault:
    """Encrypts texts and hashes ids with keys under MEWS_HOME/keys, made on first use.

    Without `texts.key` every text is unreadable; without `ids.key` no hash can be told to be of an id.
    """

    def __init__(self, keys: Path) -> None:
        keys.mkdir(parents=True, exist_ok=True)
        self._fernet = Fernet(_key(keys / "texts.key"))
        self._digest_key = _key(keys / "ids.key")

    def seal(self, text: str) -> str:
        """Encrypt one text."""
        return self._fernet.encrypt(text.encode(errors="surrogatepass")).decode()

    def open(self, token: str) -> str | None:
        """The text, or None when its key is gone."""
        try:
            return self._fernet.decrypt(token.encode()).decode(errors="surrogatepass")
        except InvalidToken:
            return None

    def digest(self, value: str) -> str:
        """A keyed hash: equal for equal values, and nothing that could be guessed and tried without the key.

        BLAKE2b, since OpenSSL's HMAC hands the interpreter to another thread at each call.
        """
        content = value.encode(errors="surrogatepass")
        return hashlib.blake2b(content, key=self._digest_key, digest_size=32).hexdigest()


def _key(path: Path) -> bytes:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_bytes(Fernet.generate_key())
    try:
        os.link(partial, path)  # the first worker wins; the others read its key
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return path.read_bytes()
