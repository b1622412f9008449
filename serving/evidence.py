"""The evidence pack: one folder that answers for a release to somebody who has nothing else.

It holds the sealed files but the weights (which their digest names), the whole ledger with its head, a page to read,
and a program that checks all of it without Mews and without a network.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import evidence_check
from serving.approval import status
from serving.bundle import MANIFEST, Bundle, read, verify
from serving.canonical import canonical
from serving.ledger import Entry, Ledger
from serving.pages import card_html, render
from serving.people import People
from serving.release import read_policy, read_spec
from serving.sealed_files import open_file
from serving.standing import Approval

_LEFT_OUT = (".safetensors", ".onnx")  # what a release weighs; the manifest names their digests
_ABOUT = ("sealed", "approved", "rejected", "revoked", "deployed", "promise_broken", "refused")


@dataclass(frozen=True)
class Pack:
    """Where the evidence lies, and whether its checker found that everything holds."""

    folder: Path
    head: str
    claims: tuple[str, ...]

    @property
    def page(self) -> Path:
        """What a person opens."""
        return self.folder / "index.html"


def write_evidence(ledger: Ledger, people: People, release: Bundle, policy: Bundle | None, *, target: Path) -> Pack:
    """Write the pack of a release to a new folder, and check it as a third party would.

    Every byte of the release is read again first. The folder appears when it is whole and was checked. Raises
    BundleAltered, LedgerAltered or FileExistsError.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; evidence is never written over")
    bundles: dict[str, Bundle] = {
        bundle.kind: verify(bundle.path, bundle.digest) for bundle in (release, policy) if bundle
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".staging-") as staging:
        folder = Path(staging) / target.name
        head, held = _write(ledger, people, bundles, target=folder)
        folder.rename(target)
    return Pack(target, head, held)


def _write(
    ledger: Ledger, people: People, bundles: Mapping[str, Bundle], *, target: Path
) -> tuple[str, tuple[str, ...]]:
    head, entries = ledger.verify(), ledger.entries()
    target.mkdir()
    for kind, bundle in bundles.items():
        _copy(bundle, target / kind)
    at_us = time.time_ns() // 1000
    stands = {kind: status(ledger, people, bundle, now_us=at_us) for kind, bundle in bundles.items()}
    claims: dict[str, Any] = {kind: _claim(bundle, stands[kind]) for kind, bundle in bundles.items()}
    (target / "ledger.jsonl").write_bytes(b"".join(entry.line for entry in entries))
    (target / "pack.json").write_bytes(canonical({**claims, "head": vars(head), "at_us": at_us}))
    shutil.copyfile(evidence_check.__file__, target / "check.py")
    held = tuple(evidence_check.check(target))
    facts = _facts(bundles, stands, entries) | {"head": head, "claims": held}
    (target / "index.html").write_text(render("evidence.html.j2", facts), encoding="utf-8")
    return head.hash, held


def _copy(bundle: Bundle, target: Path) -> None:
    for name in (MANIFEST, *bundle.files):
        if not name.endswith(_LEFT_OUT):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with open_file(bundle.path, name) as source, (target / name).open("xb") as copy:
                shutil.copyfileobj(source, copy)


def _claim(bundle: Bundle, approval: Approval) -> dict[str, str]:
    return {"subject": bundle.subject, "digest": bundle.digest, "state": approval.state}


def _facts(bundles: Mapping[str, Bundle], stands: Mapping[str, Approval], entries: tuple[Entry, ...]) -> dict[str, Any]:
    release, policy = bundles["release"], bundles.get("policy")
    digests = {bundle.digest for bundle in bundles.values()}
    return {
        "release": release,
        "spec": read_spec(release),
        "policy": read_policy(policy) if policy else None,
        "bundles": bundles,
        "stands": stands,
        "card": card_html(release),
        "training_set": _json(release, "training_set.json"),
        "thresholds": _json(release, "thresholds.json"),
        "verdict": _json(release, "verdict.json"),
        "history": [e for e in entries if e.kind in _ABOUT and e.body.get("digest") in digests],
    }


def _json(bundle: Bundle, name: str) -> Any:
    return json.loads(read(bundle, name))
