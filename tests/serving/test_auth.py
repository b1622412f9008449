import logging
import os
from pathlib import Path

import pytest

from serving.auth import KeyRing, create_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_keys.json"


@pytest.fixture
def secret(path: Path) -> bytes:
    return create_key(path, "ada", scopes=["read"]).encode()


def change(path: Path, content: bytes) -> None:
    """Write the file so that its time differs, however coarse the clock of the disk is."""
    before_ns = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before_ns + 10**9, before_ns + 10**9))


@pytest.mark.parametrize(
    "content", [b'[{"name": "a secret', b'[{"name": "a secret", "sha256": "0", "scopes": ["a secret"]}]', b"\xff", b""]
)
def test_a_file_that_cannot_be_read_leaves_the_keys_that_were_known_and_is_said_once(
    path: Path, secret: bytes, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing(path)
    change(path, content)

    with caplog.at_level(logging.ERROR):
        found = [ring.find(given) for given in (b"unknown", secret, b"another")]

    assert [key and key.name for key in found] == [None, "ada", None]
    assert len(caplog.records) == 1
    assert "api_keys.json cannot be read" in caplog.text
    assert "a secret" not in caplog.text


def test_a_file_that_is_repaired_counts_again(path: Path, secret: bytes) -> None:
    ring, whole = KeyRing(path), path.read_bytes()
    change(path, b"[")
    assert ring.find(b"unknown") is None

    path.write_bytes(whole)
    fresh = create_key(path, "grace", scopes=["read"]).encode()

    assert [key and key.name for key in map(ring.find, (secret, fresh))] == ["ada", "grace"]


def test_a_folder_in_the_place_of_the_file_leaves_the_keys_that_were_known(path: Path, secret: bytes) -> None:
    ring = KeyRing(path)
    path.unlink()
    path.mkdir()
    os.utime(path, (1, 1))

    assert [key and key.name for key in map(ring.find, (b"unknown", secret))] == [None, "ada"]


def test_a_service_does_not_start_with_keys_that_cannot_be_read(path: Path) -> None:
    path.write_bytes(b"[")

    with pytest.raises(ValueError, match="truncated"):
        KeyRing(path)
