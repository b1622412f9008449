"""Seals what passed its gate into a release, and a policy into a bundle of its own; reads both back."""

import hashlib
import json
import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.bundle import DIGEST, Bundle, describe, read, seal
from serving.ledger import Entry, Ledger
from serving.sealed_files import BundleAltered
from training.detector import DetectorSpec
from training.policy import Contract, Policy

_log = logging.getLogger(__name__)
_LEAST_DIGITS = 8  # of a digest
_PREFIX = re.compile(rf"[0-9a-f]{{{_LEAST_DIGITS},}}")
_EVIDENCE = ("evaluation.json", "verdict.json", "card.md")


class GateNotPassed(Exception):
    """A candidate whose gate did not pass cannot be sealed."""


class Lineage(Contract):
    """Where a candidate comes from; `started_by` and `persons` are who may not approve it."""

    started_by: str
    persons: list[str] = []
    model_version: str | None = None
    run_id: str | None = None
    code_revision: str | None = None
    lock_sha256: str | None = None
    champion_digest: str | None = None


def seal_release(run_dir: Path, releases: Path, *, lineage: Lineage | dict[str, Any]) -> Bundle:
    """Freeze the candidate of a run folder into the bundle that people sign.

    Raises GateNotPassed where the verdict does not say that each criterion was passed.
    """
    origin = Lineage.model_validate(lineage)
    _require_passed(json.loads((run_dir / "verdict.json").read_bytes()))
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    if DetectorSpec.model_validate_json((run_dir / "bundle" / "spec.json").read_bytes()) != spec:
        raise ValueError("bundle/spec.json is not the detector.json that the run was started with")
    with tempfile.TemporaryDirectory() as staging:
        folder = Path(staging) / spec.name
        shutil.copytree(run_dir / "bundle", folder, symlinks=True)
        for name in _EVIDENCE:
            shutil.copyfile(run_dir / name, folder / name)
        shutil.copyfile(run_dir / "training_set.json", folder / "training_set.json")
        if (run_dir / "plots").exists():  # they belong to the card that people sign
            shutil.copytree(run_dir / "plots", folder / "plots")
        return seal(folder, releases, kind="release", name=spec.name, facts=_facts(spec, origin))


def seal_policy(policy: Policy, policies: Path, *, started_by: str) -> Bundle:
    """Freeze a policy into a bundle that people sign; its author cannot."""
    with tempfile.TemporaryDirectory() as staging:
        (Path(staging) / "policy.json").write_text(policy.model_dump_json(indent=1), encoding="utf-8")
        facts = {"started_by": started_by, "persons": [], "version": policy.version}
        return seal(Path(staging), policies, kind="policy", name=policy.name, facts=facts)


def read_spec(release: Bundle) -> DetectorSpec:
    """The detector as it was sealed: an edit of its YAML does not change what a trained version means."""
    return DetectorSpec.model_validate_json(read(release, "spec.json"))


def read_policy(policy: Bundle) -> Policy:
    """The policy as it was sealed."""
    return Policy.model_validate_json(read(policy, "policy.json"))


def record_sealed(ledger: Ledger, bundle: Bundle, *, by: str) -> None:
    """Write to the ledger, once, that a bundle was sealed: the order of these entries says which is the newest."""
    with ledger.writing() as page:
        if bundle.digest not in _sealed(page.entries):
            page.append("sealed", {"subject": bundle.subject, "digest": bundle.digest, "by": by})


def sealed_bundles(root: Path, entries: Sequence[Entry]) -> list[Bundle]:
    """Every bundle below a root, oldest first, with its manifest verified but not its files; logs what is none."""
    found = []
    for folder in _folders(root, "*", entries):
        try:
            found.append(describe(folder, folder.name))
        except BundleAltered as refusal:
            _log.warning("%s/%s is left out: %s", folder.parent.name, folder.name, refusal)
    return found


def newest(root: Path, name: str, entries: Sequence[Entry]) -> Bundle | None:
    """The bundle of a name that was sealed last; raises BundleAltered rather than take the one before it."""
    folders = _folders(root, name, entries)
    return describe(folders[-1], folders[-1].name) if folders else None


def _folders(root: Path, name: str, entries: Sequence[Entry]) -> list[Path]:
    """Folders named by a digest in the order of their entries; those without one come before, by the file system."""
    numbers = _sealed(entries)
    found = [folder for folder in root.glob(f"{name}/*") if DIGEST.fullmatch(folder.name) and folder.is_dir()]
    return sorted(found, key=lambda folder: (numbers.get(folder.name, 0), folder.stat().st_mtime_ns))


def _sealed(entries: Sequence[Entry]) -> dict[str, int]:
    return {entry.body["digest"]: entry.number for entry in reversed(entries) if entry.kind == "sealed"}


def find(root: Path, prefix: str) -> Bundle:
    """The one bundle whose digest begins so; raises ValueError where there is none or more than one.

    A short beginning, such as that of an unset shell variable, names none: somebody is about to sign it.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"digest is {prefix!r}; it must be at least {_LEAST_DIGITS} characters of 0-9 and a-f")
    found = [f for f in root.glob("*/*") if f.name.startswith(prefix) and not f.name.startswith(".")]
    if len(found) != 1:
        raise ValueError(f"digest {prefix!r} names {len(found)} bundles in {root.name}; it must name one")
    return describe(found[0], found[0].name)


def code_facts(root: Path) -> dict[str, str | None]:
    """The revision and the lock file's hash of the code that runs, for a lineage."""
    done = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    lock = root / "requirements.txt"
    return {
        "code_revision": done.stdout.strip() if done.returncode == 0 else None,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
    }


def _require_passed(verdict: dict[str, Any]) -> None:
    failed = [c["name"] for c in verdict["criteria"] if c["passed"] is not True]
    if verdict["passed"] is not True or failed or not verdict["criteria"]:
        raise GateNotPassed(f"the gate did not pass: {verdict['reason']} (failed: {', '.join(failed) or 'unnamed'})")


def _facts(spec: DetectorSpec, origin: Lineage) -> dict[str, Any]:
    return origin.model_dump() | {"feature_service": spec.feature_service, "seed": spec.fit.seed, "events": spec.events}
