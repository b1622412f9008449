import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.vault import Vault

SALT, NONCE = slice(0, 16), slice(16, 28)


@given(st.text(st.characters(exclude_categories=[])))
def test_what_was_sealed_is_opened_whatever_it_holds(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    vault = Vault(tmp_path_factory.getbasetemp() / "keys")

    assert vault.open(vault.seal(text)) == text


def test_another_process_opens_what_was_sealed_and_another_key_does_not(tmp_path: Path) -> None:
    token = Vault(tmp_path / "keys").seal("hello")

    assert Vault(tmp_path / "keys").open(token) == "hello"
    assert Vault(tmp_path / "other").open(token) is None


def test_what_was_altered_or_is_no_token_is_not_opened(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    sealed = bytearray(urlsafe_b64decode(vault.seal("hello")))

    for at in range(len(sealed)):
        altered = sealed.copy()
        altered[at] ^= 1
        assert vault.open(urlsafe_b64encode(altered).decode()) is None
    assert [vault.open(token) for token in ("", "AAAA", "no token", "é")] == [None] * 4


def test_no_two_texts_share_key_and_nonce_also_across_a_fork(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    tokens = [vault.seal("same") for _ in range(100)]
    readable, writable = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writable, vault.seal("same").encode())
        os._exit(0)
    os.waitpid(child, 0)
    tokens += [os.read(readable, 1000).decode(), vault.seal("same")]
    os.close(readable)
    os.close(writable)

    used = [urlsafe_b64decode(token) for token in tokens]

    assert len({(one[SALT], one[NONCE]) for one in used}) == len(tokens)
    assert [vault.open(token) for token in tokens] == ["same"] * len(tokens)
