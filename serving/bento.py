"""A Bento for each release: code, release and policy in one image context, built without a network.

What is in a Bento is not trusted for lying there: the service adopts the sealed bundles into its home and verifies them
against the ledger like any other. So an image is immutable, and the ledger still says what may be served.
"""

import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import bentoml

from serving.bundle import Bundle, verify

SEALED = "sealed"
_PACKAGES = ("feature_repo", "training", "serving")


def build(release: Bundle, policy: Bundle, *, root: Path) -> bentoml.Bento:
    """Build `mews:<digest>` from a checkout; raises BundleAltered where release or policy is not what was sealed."""
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        for package in _PACKAGES:
            shutil.copytree(root / package, context / package, ignore=shutil.ignore_patterns("__pycache__"))
        for bundle, shelf in ((release, "releases"), (policy, "policies")):
            verify(bundle.path, bundle.digest)
            shutil.copytree(bundle.path, context / SEALED / shelf / bundle.name / bundle.digest)
        return bentoml.bentos.build(
            "serving.service:Mews",
            name="mews",
            version=release.digest[:16],
            labels={"release": release.digest, "policy": policy.digest, "detector": release.name},
            build_ctx=str(context),
            include=[f"{name}/**" for name in (*_PACKAGES, SEALED)],
            python={"packages": pinned(root), "lock_packages": False},
        )


def pinned(root: Path) -> list[str]:
    """What the service needs, at the versions of the lock."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    lock = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    versions = {_name(line): line.partition("==")[2] for line in lock if line and not line.startswith("#")}
    return [f"{_with_extras(requirement)}=={versions[_name(requirement)]}" for requirement in wanted]


def adopt(sealed: Path, home: Path) -> None:
    """Put the bundles of a Bento where the service looks for them; what is there stays."""
    for bundle in sealed.glob("*/*/*"):
        target = home / bundle.relative_to(sealed)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as partial:
            copy = shutil.copytree(bundle, Path(partial) / bundle.name)
            if not target.exists():
                copy.rename(target)


def _name(requirement: str) -> str:
    return _with_extras(requirement).partition("[")[0].lower().replace("_", "-")


def _with_extras(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+(\[[^]]*\])?", requirement)
    assert found, f"a requirement begins with a name: {requirement!r}"
    return found[0]
