"""Keeps what people wrote out of the log's reach: texts are encrypted with a key of this machine, or not kept."""

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken


class Vault:
    """Encrypts texts with a key under MEWS_HOME/keys, made on first use; without it every text is unreadable."""

    def __init__(self, keys: Path) -> None:
        keys.mkdir(parents=True, exist_ok=True)
        self._fernet = Fernet(_key(keys / "texts.key"))

    def seal(self, text: str) -> str:
        """Encrypt one text."""
        return self._fernet.encrypt(text.encode(errors="surrogatepass")).decode()

    def open(self, token: str) -> str | None:
        """The text, or None when its key is gone."""
        try:
            return self._fernet.decrypt(token.encode()).decode(errors="surrogatepass")
        except InvalidToken:
            return None


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
