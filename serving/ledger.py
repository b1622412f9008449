"""The ledger: what people signed and machines did, append-only, one line each, every line bound to all before it.

An entry's hash covers the hash of the entry before it, so an altered, removed or reordered entry breaks the chain. A
cut tail does not, so the head (number and hash of the last entry) is remembered beside the ledger and by every
witness, which is best kept where the ledger's writer cannot reach: another disk, an object lock, a git commit.
An entry is acknowledged when line, folder and heads are on disk; a line that a kill left half-written never was.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from serving.canonical import canonical, digest_of
from serving.durable import replace_file


class LedgerAltered(Exception):
    """The ledger is not what was acknowledged; the message names the first entry that is wrong."""


@dataclass(frozen=True)
class Head:
    """The last entry of a ledger at some moment."""

    number: int = 0
    hash: str = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One line: what happened (`kind`), when, and the particulars."""

    number: int
    at_us: int
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str

    @classmethod
    def after(cls, head: Head, kind: str, body: Mapping[str, Any], *, at_us: int) -> Self:
        """The entry that follows a head."""
        content: dict[str, Any] = {
            "number": head.number + 1,
            "at_us": at_us,
            "kind": kind,
            "body": body,
            "previous": head.hash,
        }
        return cls(**content, hash=digest_of(content))

    @property
    def head(self) -> Head:
        """The end of the ledger that this entry makes."""
        return Head(self.number, self.hash)

    @property
    def line(self) -> bytes:
        """The entry as it stands in the file."""
        return canonical(vars(self)) + b"\n"

    @classmethod
    def parse(cls, line: bytes, head: Head) -> Self:
        """Read the line that follows a head; raises LedgerAltered where it does not."""
        try:
            found = cls(**json.loads(line))
            expected = cls.after(head, found.kind, found.body, at_us=found.at_us)
        except (ValueError, TypeError) as error:
            raise LedgerAltered(f"entry {head.number + 1} is no entry") from error
        if found != expected or line != found.line:
            raise LedgerAltered(f"entry {head.number + 1} was altered: its hash does not follow from its content")
        return found


class Ledger:
    """A ledger file with its lock and remembered head beside it; `witnesses` are more places that remember the head."""

    def __init__(self, path: Path, *, witnesses: Sequence[Path] = ()) -> None:
        self.path = path
        self._heads = [path.with_suffix(".head"), *witnesses]
        self._entries: list[Entry] = []
        self._num_bytes = 0  # how much of the file `_entries` covers
        self._turn = threading.RLock()

    def entries(self) -> tuple[Entry, ...]:
        """Every acknowledged entry, verified; raises LedgerAltered."""
        with self._turn:
            heads = [_remembered(path) for path in self._heads]  # before the lines: a writer adds lines first
            self._read()
            for head in heads:
                self._check(head)
            return tuple(self._entries)

    def verify(self) -> Head:
        """Read the whole file anew; raises LedgerAltered naming the first altered entry."""
        with self._turn:
            self._entries, self._num_bytes = [], 0
            self.entries()
            return self.head

    @property
    def head(self) -> Head:
        """The last entry that was read."""
        return self._entries[-1].head if self._entries else Head()

    def append(self, kind: str, body: Mapping[str, Any], *, at_us: int | None = None) -> Entry:
        """Add one entry; it is on disk when this returns."""
        with self.writing() as page:
            return page.append(kind, body, at_us=at_us)

    @contextmanager
    def writing(self) -> Iterator["Page"]:
        """Hold the ledger's only pen: what is read inside stays true until the last append inside."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it when its process dies
            with self._turn:
                self._begin()
                self.entries()
                yield Page(self)

    def _begin(self) -> None:
        """Remember the empty head before the first line, so that a missing head is always an alteration."""
        if not self.path.exists() and not any(path.exists() for path in self._heads):
            self._remember()

    def add_witness(self, path: Path) -> None:
        """Let one more place remember the head from now on; a ledger opened with it then insists on it."""
        with self.writing():
            self._heads.append(path)
            self._remember()

    def _write(self, entry: Entry) -> None:
        with self.path.open("ab") as file:
            file.truncate(self._num_bytes)  # a half-written line that nobody acknowledged
            file.write(entry.line)
            file.flush()
            os.fsync(file.fileno())
        self._entries.append(entry)
        self._num_bytes += len(entry.line)
        self._remember()

    def _remember(self) -> None:
        for path in self._heads:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, canonical(vars(self.head)))

    def _read(self) -> None:
        if not self.path.exists():
            self._entries, self._num_bytes = [], 0
            return
        if self.path.stat().st_size < self._num_bytes:
            self._entries, self._num_bytes = [], 0
        with self.path.open("rb") as file:
            file.seek(self._num_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._entries.append(Entry.parse(line, self.head))
                self._num_bytes += len(line)

    def _check(self, remembered: Head | None) -> None:
        if remembered is None:
            if self._entries:
                raise LedgerAltered("the remembered head is missing, although there are entries")
        elif remembered.number > len(self._entries):
            raise LedgerAltered(f"entry {len(self._entries) + 1} is missing: the head was {remembered.number}")
        elif remembered.number and self._entries[remembered.number - 1].hash != remembered.hash:
            raise LedgerAltered(f"entry {remembered.number} is not the one that was remembered as the head")


@dataclass(frozen=True)
class Page:
    """The ledger while its pen is held."""

    ledger: Ledger

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry, including those written inside."""
        return tuple(self.ledger._entries)

    def append(self, kind: str, body: Mapping[str, Any], *, at_us: int | None = None) -> Entry:
        """Add one entry; it is on disk when this returns."""
        at_us = time.time_ns() // 1000 if at_us is None else at_us
        entry = Entry.after(self.ledger.head, kind, json.loads(canonical(body)), at_us=at_us)
        self.ledger._write(entry)
        return entry


def _remembered(path: Path) -> Head | None:
    try:
        return Head(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LedgerAltered(f"the remembered head {path.name} is no head") from error
