"""What is to be served: deployments of signed releases, one at a time, and the way back.

A deployment is an entry of the ledger; nothing here makes a bundle servable that people did not sign.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from serving.approval import require_servable, status
from serving.bundle import Bundle, Kind, describe
from serving.hotfix import HotfixRefused, read_hotfix
from serving.ledger import Entry, Ledger
from serving.people import People
from serving.refusals import record_refusal
from serving.sealed_files import BundleAltered

_LEASE_S = 600
KINDS: tuple[Kind, ...] = ("release", "policy", "hotfix")  # what a deployment names, in the order of its paths


class DeploymentRefused(Exception):
    """Another deployment of this detector is running, or there is nothing to deploy."""


@dataclass(frozen=True)
class Deployment:
    """One release with one policy, that was asked to be served."""

    detector: str
    release: str
    policy: str
    by: str
    at_us: int
    number: int
    hotfix: str = ""
    back_from: int = 0  # the number of the deployment that people went back from with this one

    @property
    def what(self) -> tuple[str, str, str]:
        """What is served, however often it was deployed."""
        return self.release, self.policy, self.hotfix

    @classmethod
    def of(cls, entry: Entry) -> "Deployment":
        """Read a `deployed` entry of the ledger."""
        body = entry.body
        return cls(
            body["detector"],
            body["digest"],
            body["policy"],
            body["by"],
            entry.at_us,
            entry.number,
            body.get("hotfix", ""),
            body.get("back_from", 0),
        )


def deployments(ledger: Ledger, detector: str) -> list[Deployment]:
    """Every deployment of a detector, newest first."""
    mine = [e for e in ledger.entries() if e.kind == "deployed" and e.body["detector"] == detector]
    return [Deployment.of(entry) for entry in reversed(mine)]


def candidates(ledger: Ledger, detector: str) -> list[Deployment]:
    """What to serve, and after it what to fall back to: never what people went back from and did not deploy again."""
    found = deployments(ledger, detector)
    numbered, gone = {d.number: d for d in found}, set[tuple[str, str, str]]()
    lasting: list[Deployment] = []
    for one in found:
        if one.what not in gone:
            lasting.append(one)
        if left := numbered.get(one.back_from):
            gone.add(left.what)
    return lasting


def deployed(ledger: Ledger, detector: str) -> Deployment | None:
    """What was deployed last, whether it may still be served or not."""
    return next(iter(deployments(ledger, detector)), None)


def detectors(ledger: Ledger) -> list[str]:
    """Every detector that was ever deployed."""
    return sorted({e.body["detector"] for e in ledger.entries() if e.kind == "deployed"})


@dataclass(frozen=True)
class Shelves:
    """Where sealed bundles lie."""

    releases: Path
    policies: Path

    def release(self, detector: str, digest: str) -> Path:
        """The folder of a release."""
        return self.releases / detector / digest

    def policy(self, digest: str) -> Path:
        """The folder of a policy, whatever its name."""
        return next(self.policies.glob(f"*/{digest}"), self.policies / "unknown" / digest)

    @property
    def hotfixes(self) -> Path:
        """Beside the releases."""
        return self.releases.parent / "hotfixes"

    def hotfix(self, detector: str, digest: str) -> Path:
        """The folder of a hotfix."""
        return self.hotfixes / detector / digest

    def paths(self, detector: str, release: str, policy: str, hotfix: str) -> list[Path]:
        """Everything that must be approved for a deployment to be served."""
        found = [self.release(detector, release), self.policy(policy)]
        return [*found, self.hotfix(detector, hotfix)] if hotfix else found


def servable(
    ledger: Ledger, people: People, shelves: Shelves, detector: str, *, now_us: int | None = None
) -> Deployment | None:
    """The newest candidate whose release and policy are both approved now: after a revocation, the one before."""
    for deployment in candidates(ledger, detector):
        paths = shelves.paths(detector, deployment.release, deployment.policy, deployment.hotfix)
        if _are_approved(ledger, people, paths, now_us=now_us):
            return deployment
    return None


def deploy(
    ledger: Ledger,
    people: People,
    release: Bundle,
    policy: Bundle,
    *,
    by: str,
    hotfix: Bundle | None = None,
    back_from: int = 0,
) -> Deployment:
    """Ask for a release to be served; raises NotApproved, BundleAltered, HotfixRefused or DeploymentRefused."""
    with deploying(ledger, people, release, policy, by=by, hotfix=hotfix, back_from=back_from):
        pass
    last = deployed(ledger, release.name)
    assert last is not None
    return last


@contextmanager
def deploying(
    ledger: Ledger,
    people: People,
    release: Bundle,
    policy: Bundle,
    *,
    by: str,
    hotfix: Bundle | None = None,
    back_from: int = 0,
) -> Iterator[None]:
    """Deploy when the block inside (trials of the new release) ends well; nobody else deploys this detector meanwhile.

    The lease ends by itself when its process dies or after ten minutes, so a kill leaves nothing stuck.
    """
    body = {"detector": release.name, "digest": release.digest, "policy": policy.digest, "by": by}
    body |= {"hotfix": hotfix.digest} if hotfix else {}
    asked = [release, policy, *([hotfix] if hotfix else [])]
    lease = _take_lease(ledger, body)
    try:
        _require(ledger, people, *asked)
        yield
        _require(ledger, people, *asked)
        with ledger.writing() as page:
            if (holder := _holder(page.entries, release.name)) is None or holder.number != lease.number:
                raise DeploymentRefused(f"{release.name}: the lease of this deployment ran out")
            page.append("deployed", body | {"lease": lease.number} | ({"back_from": back_from} if back_from else {}))
    except BaseException as error:
        ledger.append("deployment_failed", body | {"lease": lease.number, "reason": type(error).__name__})
        raise


def rollback(ledger: Ledger, people: People, shelves: Shelves, detector: str, *, by: str) -> Deployment:
    """Deploy again what was served before the last deployment and may still be served.

    What people went back from comes back only when somebody deploys it again.
    """
    current = deployed(ledger, detector)
    for past in candidates(ledger, detector):
        if current is None or past.what == current.what:
            continue
        paths = shelves.paths(detector, past.release, past.policy, past.hotfix)
        if _are_approved(ledger, people, paths):
            release, policy, *hotfix = (describe(path, path.name) for path in paths)
            change = hotfix[0] if hotfix else None
            return deploy(ledger, people, release, policy, by=by, hotfix=change, back_from=current.number)
    raise DeploymentRefused(f"{detector}: no earlier deployment may still be served")


def _require(ledger: Ledger, people: People, *asked: Bundle) -> None:
    for bundle, kind in zip(asked, KINDS, strict=False):
        require_servable(ledger, people, bundle.path, kind=kind)
    release, policy, *hotfixes = asked
    for hotfix in hotfixes:
        _require_fitting(ledger, hotfix, release=release.digest, policy=policy.digest)


def _require_fitting(ledger: Ledger, hotfix: Bundle, *, release: str, policy: str) -> None:
    try:
        read_hotfix(hotfix, release=release, policy=policy)
    except (HotfixRefused, ValidationError) as refusal:
        record_refusal(ledger, hotfix.subject, hotfix.digest, str(refusal))
        raise


def _are_approved(ledger: Ledger, people: People, paths: Sequence[Path], *, now_us: int | None = None) -> bool:
    try:
        found = [describe(path, path.name) for path in paths]
    except BundleAltered:
        return False
    is_each_what_it_should_be = all(
        (bundle.kind, bundle.name) == (kind, path.parent.name)
        for bundle, kind, path in zip(found, KINDS, paths, strict=False)
    )
    states = {status(ledger, people, bundle, now_us=now_us).state for bundle in found}
    return is_each_what_it_should_be and states == {"approved"}


def _take_lease(ledger: Ledger, body: dict[str, str]) -> Entry:
    holder_of = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "until_us": time.time_ns() // 1000 + _LEASE_S * 10**6,
    }
    with ledger.writing() as page:
        if holder := _holder(page.entries, body["detector"]):
            why = f"{body['detector']}: a deployment by {holder.body['by']} runs since entry {holder.number}"
            page.append("refused", {"subject": f"release/{body['detector']}", "digest": body["digest"], "reason": why})
            raise DeploymentRefused(why)
        return page.append("deploying", body | holder_of)


def _holder(entries: Sequence[Entry], detector: str) -> Entry | None:
    """The entry with which a deployment of this detector began that has not ended."""
    ended: set[int] = set()
    for entry in reversed(entries):
        if entry.body.get("detector") != detector:
            continue
        if entry.kind in ("deployed", "deployment_failed"):
            ended.add(entry.body["lease"])
        elif entry.kind == "deploying" and entry.number not in ended and _is_alive(entry):
            return entry
    return None


def _is_alive(entry: Entry) -> bool:
    if entry.body["until_us"] < time.time_ns() // 1000:
        return False
    if entry.body["host"] != socket.gethostname():
        return True
    try:
        os.kill(entry.body["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
