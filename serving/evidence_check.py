"""Checks an evidence pack: `python check.py`, in its folder. Knows nothing of Mews; needs the package `cryptography`.

It is a second implementation of what serving verifies, from the formats alone: SHA-256 over canonical JSON, an in-toto
statement in a DSSE envelope, Ed25519 and WebAuthn. So a third party need not trust the code that wrote the pack.
"""

import base64
import hashlib
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

Json = dict[str, Any]
_ABOUT = ("approved", "rejected", "revoked", "promise_broken")
_DAY_US = 86_400_000_000


def main(folder: Path) -> int:
    """Say what holds; 1 where something does not."""
    try:
        for line in check(folder):
            sys.stdout.write(f"holds: {line}\n")
    except (ValueError, KeyError, TypeError, OSError, InvalidSignature) as error:
        sys.stdout.write(f"DOES NOT HOLD: {error}\n")
        return 1
    return 0


def check(folder: Path) -> Iterator[str]:
    """Everything that the pack claims, one sentence per claim; raises where one does not hold."""
    claims = json.loads((folder / "pack.json").read_bytes())
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_bytes().splitlines()]
    yield _chain(entries, claims["head"])
    for kind in ("release", "policy"):
        if bundle := claims.get(kind):
            yield _bundle(folder / kind, bundle)
            facts = json.loads((folder / kind / "manifest.json").read_bytes())["facts"]
            yield from _approvals(entries, bundle, facts, at_us=claims["at_us"])


def _chain(entries: list[Json], head: Json) -> str:
    previous = "0" * 64
    for number, entry in enumerate(entries, start=1):
        content = {name: entry[name] for name in ("number", "at_us", "kind", "body", "previous")}
        is_next = (entry["number"], entry["previous"]) == (number, previous)
        _require(is_next and entry["hash"] == _sha256(_canonical(content)), f"ledger entry {number} was altered")
        previous = entry["hash"]
    _require(head == {"number": len(entries), "hash": previous}, "the ledger does not end at the head that is claimed")
    return f"the ledger's {len(entries)} entries are one chain; its head is {previous} (compare it with your witness)"


def _bundle(folder: Path, bundle: Json) -> str:
    content = (folder / "manifest.json").read_bytes()
    _require(_sha256(content) == bundle["digest"], f"{folder.name}/manifest.json is not what {bundle['digest']} names")
    files, num_here = json.loads(content)["files"], 0
    for path in (p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"):
        name = path.relative_to(folder).as_posix()
        _require(name in files and _sha256(path.read_bytes()) == files[name]["sha256"], f"{folder.name}/{name} differs")
        num_here += 1
    return f"{bundle['subject']} is {bundle['digest']}; {num_here} of its {len(files)} files are here, unaltered"


def _approvals(entries: list[Json], bundle: Json, facts: Json, *, at_us: int) -> Iterator[str]:
    everybody, current = _people(entries)
    makers = {_fold(name) for name in (facts["started_by"], *facts.get("persons", []))}
    signed: dict[str, str] = {}
    is_ended = False
    for entry in (e for e in entries if e["kind"] in _ABOUT and e["body"].get("digest") == bundle["digest"]):
        here = f"entry {entry['number']}:"
        if entry["kind"] == "promise_broken":  # needs no signature, as it can only take trust away
            is_ended = is_ended or entry["body"]["expires"]
            yield f"{here} a promise no longer holds: {entry['body']['reason']}"
            continue
        said = _proven(entry, entries, current["people"] if entry["kind"] == "approved" else everybody)
        if said is None or said["subject"] != bundle["subject"]:
            continue
        if entry["kind"] != "approved":
            is_ended = True
            yield f"{here} {said['person']} {entry['kind']} it: {said['reason']}"
        elif why_not := _why_it_counts_not(said, entry, current, makers, at_us=at_us):
            yield f"{here} the signature of {said['person']} as {said['role']} does not count: {why_not}"
        elif signed.setdefault(said["person"], said["role"]) == said["role"]:
            yield f"{here} {said['person']} approved it as {said['role']}"
    missing = set(current["required_roles"]) - set(signed.values())
    is_called = bundle["state"] == "approved"
    _require(not is_called or not missing, f"{bundle['subject']} lacks a signature of {sorted(missing)}")
    _require(not is_called or not is_ended, f"{bundle['subject']} was ended and is called approved")
    yield f"{bundle['subject']} was {bundle['state']} when this was written"


def _why_it_counts_not(said: Json, entry: Json, current: Json, makers: set[str], *, at_us: int) -> str:
    """Why an approval that somebody signed is none; empty where it is one."""
    roles = next(person["roles"] for person in current["people"] if person["name"] == said["person"])
    if _fold(said["person"]) in makers:
        return "who made it may not approve it"
    if said["role"] not in roles:
        return "the role is another's"
    days = current["expires_days"]
    is_old = at_us >= min(said["at_us"], entry["at_us"]) + days * _DAY_US
    return f"it is older than {days} days" if is_old else ""


def _people(entries: list[Json]) -> tuple[list[Json], Json]:
    """Everybody who ever counted, and the version that counts now; a change takes two who counted before it."""
    everybody: list[Json] = []
    current: Json = {}
    since, agreed = 0, dict[str, set[str]]()
    for entry in entries:
        body = entry["body"]
        if entry["kind"] == "people_begun" and not current:
            current = body["people"]
        elif entry["kind"] == "people" and current:
            said = _proven(entry, entries, current["people"])
            is_this = said and said["digest"] == body["digest"] == _sha256(_canonical(body["people"]))
            if not said or not is_this or said["seen_number"] < since:
                continue
            agreed.setdefault(body["digest"], set()).add(said["person"])
            if len(agreed[body["digest"]]) < 2:
                continue
            current, since, agreed = body["people"], entry["number"], {}
        else:
            continue
        everybody += current["people"]
    return everybody, current


def _proven(entry: Json, entries: list[Json], people: list[Json]) -> Json | None:
    """What a signed entry says, if somebody of these people signed it about this digest and this past.

    An entry that holds no envelope, or one that says nothing, was signed by nobody.
    """
    try:
        return _opened(entry, entries, people)
    except (LookupError, ValueError, TypeError, AttributeError):
        return None


def _opened(entry: Json, entries: list[Json], people: list[Json]) -> Json | None:
    envelope = entry["body"]["envelope"]
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    said = {**statement["predicate"], "subject": statement["subject"][0]["name"]}
    said["digest"] = statement["subject"][0]["digest"]["sha256"]
    seen = said["seen_number"]
    is_past = seen < entry["number"] and (not seen or entries[seen - 1]["hash"] == said["seen_hash"])
    if not is_past or (said["kind"], said["digest"]) != (entry["kind"], entry["body"]["digest"]):
        return None
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    keys = [p["public_key"] for p in people if p["name"] == said["person"]]
    is_signed = any(_verifies(key, s, signed) for key in keys for s in envelope["signatures"])
    return said if is_signed else None


def _verifies(key: str, signature: Json, signed: bytes) -> bool:
    scheme = _ed25519 if key.startswith("ed25519:") else _passkey
    verify: Callable[[str, Json, bytes], None] = scheme
    try:
        verify(key, signature, signed)
    except (InvalidSignature, ValueError, KeyError):
        return False
    return True


def _ed25519(key: str, signature: Json, signed: bytes) -> None:
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("ed25519:")))
    public.verify(base64.b64decode(signature["sig"]), signed)


def _passkey(key: str, signature: Json, signed: bytes) -> None:
    _, site, _, der = key.split(":")
    authenticator, client = (_base64url(signature[name]) for name in ("authenticatorData", "clientDataJSON"))
    said = json.loads(client)
    is_this = said["type"] == "webauthn.get" and _base64url(said["challenge"]) == hashlib.sha256(signed).digest()
    is_here = authenticator[:32] == hashlib.sha256(site.encode()).digest() and authenticator[32] & 5 == 5
    _require(is_this and is_here, "an assertion about something else")
    public: Any = load_der_public_key(base64.b64decode(der))
    content = authenticator + hashlib.sha256(client).digest()
    raw = base64.b64decode(signature["sig"])
    public.verify(raw, content) if isinstance(public, Ed25519PublicKey) else public.verify(
        raw, content, ECDSA(SHA256())
    )


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(what)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
