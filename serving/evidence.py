"""The evidence pack: one folder that answers for a release to somebody who has nothing else.

It holds the sealed files but the weights (which their digest names), the whole ledger with its head, a page to read,
and a program that checks all of it without Mews and without a network.
"""

import base64
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

from serving import evidence_check
from serving.approval import status
from serving.bundle import MANIFEST, Bundle, verify
from serving.canonical import canonical
from serving.ledger import Entry, Ledger
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

    Every byte of the release is read again first. Raises BundleAltered, LedgerAltered or FileExistsError.
    """
    bundles: dict[str, Bundle] = {
        bundle.kind: verify(bundle.path, bundle.digest) for bundle in (release, policy) if bundle
    }
    head, entries = ledger.verify(), ledger.entries()
    target.mkdir(parents=True)
    for kind, bundle in bundles.items():
        _copy(bundle, target / kind)
    stands = {kind: status(ledger, people, bundle) for kind, bundle in bundles.items()}
    claims: dict[str, Any] = {kind: _claim(bundle, stands[kind]) for kind, bundle in bundles.items()}
    (target / "ledger.jsonl").write_bytes(b"".join(entry.line for entry in entries))
    (target / "pack.json").write_bytes(canonical({**claims, "head": vars(head)}))
    shutil.copyfile(evidence_check.__file__, target / "check.py")
    held = tuple(evidence_check.check(target))
    facts = _facts(bundles, stands, entries) | {"head": head, "claims": held}
    (target / "index.html").write_text(_page(facts), encoding="utf-8")
    return Pack(target, head.hash, held)


def card_html(bundle: Bundle) -> str:
    """The sealed evaluation card as HTML, its plots inside; markup within its text stays text."""
    if "card.md" not in bundle.files:
        return ""
    with open_file(bundle.path, "card.md") as file:
        text = file.read().decode()
    for name in (name for name in bundle.files if name.endswith(".png")):
        with open_file(bundle.path, name) as file:
            text = text.replace(f"({name})", f"(data:image/png;base64,{base64.b64encode(file.read()).decode()})")
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def moment(at_us: int) -> str:
    """A moment as people write it, in UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")


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
    with open_file(bundle.path, name) as file:
        return json.loads(file.read())


def _page(facts: Mapping[str, Any]) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=select_autoescape(default=True, default_for_string=True),
    )
    templates.filters |= {"moment": moment}
    return templates.get_template("evidence.html.j2").render(**facts)
