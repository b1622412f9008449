import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("content", [b"", b"A" * 43, b"A" * 42 + b"=="])
@pytest.mark.parametrize("name", ["texts.key", "ids.key"])
def test_nothing_is_encrypted_or_hashed_with_what_is_no_key(tmp_path: Path, name: str, content: bytes) -> None:
    Vault(tmp_path)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=rf"{name} holds {len(content)} bytes that are no key"):
        Vault(tmp_path)


def test_all_who_start_first_have_the_same_key_also_with_the_same_process_id(tmp_path: Path) -> None:
    for home in range(20):
        with ThreadPoolExecutor(8) as pods:
            vaults = list(pods.map(Vault, [tmp_path / str(home)] * 8))

        tokens = [vault.seal("hello") for vault in vaults]

        assert {Vault(tmp_path / str(home)).open(token) for token in tokens} == {"hello"}


def test_whoever_is_killed_while_the_key_is_published_leaves_no_second_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def and_die(step: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            step(*args)
            os._exit(9)

        return call

    if (child := os.fork()) == 0:
        for name in ("link", "replace"):
            monkeypatch.setattr(os, name, and_die(getattr(os, name)))
        Vault(tmp_path)
    os.waitpid(child, 0)

    key = (tmp_path / "texts.key").read_bytes()

    assert [path.name for path in tmp_path.iterdir() if path.read_bytes() == key] == ["texts.key"]


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
