"""Seals what passed its gate into a release, and a policy into a bundle of its own; reads both back."""

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from serving.bundle import Bundle, describe, read, seal
from training.detector import DetectorSpec
from training.policy import Contract, Policy

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


def sealed_bundles(root: Path, name: str | None = None) -> list[Bundle]:
    """Every bundle below a root, oldest first, with its manifest verified but not its files."""
    folders = [f for f in root.glob(f"{name or '*'}/*") if not f.name.startswith(".")]
    return [describe(f, f.name) for f in sorted(folders, key=lambda f: (f / "manifest.json").stat().st_mtime_ns)]


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
