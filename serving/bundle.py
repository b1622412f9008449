"""A bundle: a sealed folder whose every byte is named by one digest.

`manifest.json` lists the SHA-256 and size of every file and the facts about the whole. The digest is the SHA-256 of the
manifest's canonical bytes, so the same inputs give the same digest on any machine; the folder is named by it.

What is checked must be what is loaded, although somebody may swap files in between. So a loader does not read the
folder that it verified: `open_verified` hashes the bytes while it copies them into a folder of this process's own user,
and the loader maps files from there. A copy costs one write per release and machine; loading from bytes in memory
would cost them once per process, and hard links would share the inodes that an intruder writes to.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving.canonical import canonical
from serving.durable import sync_folder
from serving.sealed_files import BundleAltered, FileFact, Inode, check_name, copy_file, open_file, read_file, walk

Kind = Literal["release", "policy", "hotfix"]
MANIFEST = "manifest.json"
_NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")
DIGEST = re.compile(r"[0-9a-f]{64}")
_STAGING = ".staging-"
_STALE_S = 3600

Verified = dict[tuple[Path, str], dict[str, Inode]]  # the inodes of each bundle when it was last read whole


@dataclass(frozen=True)
class Bundle:
    """A sealed folder; `files` maps a relative name to its SHA-256 and size."""

    kind: Kind
    name: str
    digest: str
    path: Path
    facts: Mapping[str, Any]
    files: Mapping[str, FileFact]
    manifest: bytes = field(repr=False)

    @property
    def subject(self) -> str:
        """What a signature names beside the digest, such as `release/payment_fraud`."""
        return f"{self.kind}/{self.name}"


def seal(folder: Path, root: Path, *, kind: Kind, name: str, facts: Mapping[str, Any]) -> Bundle:
    """Copy a folder to `root/NAME/DIGEST`, read-only, in one rename; sealing the same again changes nothing.

    Raises ValueError for a file that no bundle may hold: a link, a special file, or a format that can run code.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"bundle name is {name!r}; it must match {_NAME.pattern}")
    shelf = root / name
    with _staging(shelf) as staging:
        try:
            files = {name: _sealed_copy(folder, name, staging) for name in sorted(walk(folder)) if name != MANIFEST}
        except BundleAltered as refusal:
            raise ValueError(f"cannot seal {folder.name}: {refusal}") from refusal
        manifest = canonical({"kind": kind, "name": name, "facts": facts, "files": files})
        digest = hashlib.sha256(manifest).hexdigest()
        if not (shelf / digest).exists():
            _publish(staging, manifest, shelf / digest)
    return verify(shelf / digest, digest)


def describe(path: Path, digest: str) -> Bundle:
    """Read what a bundle says about itself: its manifest is verified, its files are not."""
    if not DIGEST.fullmatch(digest):
        raise BundleAltered(f"{digest!r} is no digest; it must match {DIGEST.pattern}")
    with open_file(path, MANIFEST) as file:
        manifest = file.read()
    if hashlib.sha256(manifest).hexdigest() != digest:
        raise BundleAltered(f"{MANIFEST} changed: its digest is not {digest}")
    value = json.loads(manifest)
    for name in value["files"]:
        check_name(name)
    return Bundle(value["kind"], value["name"], digest, path, value["facts"], value["files"], manifest)


def verify(path: Path, digest: str, *, verified: Verified | None = None) -> Bundle:
    """Re-read every byte of a bundle; where `verified` knows its inodes, sizes and times, only look at those.

    Raises BundleAltered for a file that changed, is missing, was added, is a link or special, or could run code.
    """
    bundle = describe(path, digest)
    seen = _inodes(bundle)
    if verified is not None and verified.get((path, digest)) == seen:
        return bundle
    for name in bundle.files:
        _check(bundle, name, read_file(path, name))
    if walk(path) != seen:
        raise BundleAltered(f"{path.name} changed while it was read")
    if verified is not None:
        verified[path, digest] = seen
    return bundle


def read(bundle: Bundle, name: str) -> bytes:
    """The bytes of one file as they were sealed; raises BundleAltered where they are others."""
    with open_file(bundle.path, name) as file:
        content = file.read()
    _check(bundle, name, {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)})
    return content


def open_verified(path: Path, digest: str, *, private: Path) -> Bundle:
    """A copy of exactly the bytes that were hashed, in a folder of this user, from which to load without a race."""
    target = private / digest
    if target.exists():
        try:
            return verify(target, digest)
        except BundleAltered:
            shutil.rmtree(target)
    bundle = describe(path, digest)
    _inodes(bundle)
    with _staging(private) as staging:
        private.chmod(0o700)
        for name in bundle.files:
            _check(bundle, name, copy_file(path, name, staging))
        _publish(staging, bundle.manifest, target)
    return verify(target, digest)


def _sealed_copy(folder: Path, name: str, target: Path) -> FileFact:
    check_name(name)
    return copy_file(folder, name, target)


def _inodes(bundle: Bundle) -> dict[str, Inode]:
    inodes = walk(bundle.path)
    named = {MANIFEST, *bundle.files}
    if missing := named - inodes.keys():
        raise BundleAltered(f"{min(missing)} is missing")
    if extra := inodes.keys() - named:
        raise BundleAltered(f"{min(extra)} was added")
    return inodes


def _check(bundle: Bundle, name: str, found: FileFact) -> None:
    if found != bundle.files[name]:
        sealed = bundle.files[name]["sha256"]
        raise BundleAltered(f"{name} changed: its SHA-256 is {found['sha256']}, {sealed} was sealed")


@contextmanager
def _staging(shelf: Path) -> Iterator[Path]:
    """A folder beside the target; those that killed processes left behind are removed after an hour."""
    shelf.mkdir(parents=True, exist_ok=True)
    for left in shelf.glob(f"{_STAGING}*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    staging = shelf / f"{_STAGING}{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, manifest: bytes, target: Path) -> None:
    (staging / MANIFEST).write_bytes(manifest)
    (staging / MANIFEST).chmod(0o444)
    for folder in [*(f for f in staging.rglob("*") if f.is_dir()), staging]:
        sync_folder(folder)
        folder.chmod(0o755)
    try:
        os.rename(staging, target)  # noqa: PTH104  # one rename: the bundle is whole or absent
    except OSError:
        if not target.exists():  # somebody else sealed the same bytes first
            raise
    sync_folder(target.parent)
