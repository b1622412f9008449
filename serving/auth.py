"""Who may ask: API keys that are hashed at rest, their scopes, and how often each may come."""

import hashlib
import hmac
import logging
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import msgspec

_log = logging.getLogger(__name__)

Scope = Literal["decide", "bulk", "read"]
_SCOPE_OF = {
    "/v1/decisions": "decide",
    "/v1/moderations": "decide",
    "/v1/scores": "decide",
    "/v1/bulk": "bulk",
    "/v1/tables": "bulk",
}
_DESCRIBED = {"/", "/docs", "/docs.js", "/openapi.json", "/docs.json", "/schema.json"}
PUBLIC = frozenset({*_DESCRIBED, "/healthz", "/livez", "/readyz", "/metrics"})

OWN_LOGIN = "/admin/"  # people log in there with a passkey, not with an API key


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One API key: the hash of its secret, what it may do, and its rate; several keys may share a caller's name."""

    name: str
    sha256: str
    scopes: list[Scope]
    per_second: float = 1000.0
    burst: int = 2000


def create_key(path: Path, name: str, *, scopes: list[Scope]) -> str:
    """Add a key to the file and return its secret, which is kept nowhere."""
    secret = f"mews_{secrets.token_urlsafe(32)}"
    keys = [*read_keys(path), Key(name, hashlib.sha256(secret.encode()).hexdigest(), scopes)]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(keys)))
    partial.rename(path)
    return secret


def parse_scopes(names: list[str]) -> list[Scope]:
    """Scopes by name; raises ValueError naming the value and what it may be."""
    known = get_args(Scope)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"scope is {unknown[0]!r}; it must be one of {', '.join(known)}")
    return [scope for scope in known if scope in names]


def read_keys(path: Path) -> list[Key]:
    """The keys in a file; none where there is no file. Raises ValueError where it holds something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Key]) if path.exists() else []
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name} is no list of keys: {error}") from error


def scope_of(method: str, path: str) -> Scope:
    """What a request needs; a path that is not listed needs `read`."""
    return _SCOPE_OF.get(path, "read") if method == "POST" else "read"  # type: ignore[return-value]


class KeyRing:
    """The keys of a file, which may change while the service runs: rotation is adding one and later deleting one.

    While the file cannot be read, the keys that were read last count; a service does not start without them.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._seen, self._is_readable = path, _changed_ns(path), True
        self._keys = read_keys(path)

    def __len__(self) -> int:
        return len(self._keys)

    def refresh(self) -> None:
        """Read the file again if it changed; says once that it cannot be read."""
        try:
            if (changed := _changed_ns(self._path)) != self._seen:
                self._keys, self._seen = read_keys(self._path), changed
            self._is_readable = True
        except (OSError, ValueError) as error:
            if self._is_readable:
                _log.error("%s cannot be read; the keys before it count: %s", self._path, type(error).__name__)
            self._is_readable = False

    def find(self, secret: bytes) -> Key | None:
        """The key of a secret; a key that was made a moment ago is found as well."""
        digest = hashlib.sha256(secret).hexdigest()
        if (found := self._known(digest)) is None:
            self.refresh()
            found = self._known(digest)
        return found

    def _known(self, digest: str) -> Key | None:
        """Takes a time that does not depend on how much of the digest is right."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def _changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@dataclass
class RateLimit:
    """A token bucket per key, in this process."""

    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def wait_s(self, key: Key) -> int:
        """Take one request; 0, or the whole seconds after which to try again."""
        now = self.clock()
        tokens, then = self._buckets.get(key.sha256, (float(key.burst), now))
        tokens = min(key.burst, tokens + (now - then) * key.per_second)
        if tokens < 1:
            self._buckets[key.sha256] = (tokens, now)
            return math.ceil((1 - tokens) / key.per_second)
        self._buckets[key.sha256] = (tokens - 1, now)
        return 0
