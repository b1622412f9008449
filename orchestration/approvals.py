"""Who may sign what here: the ledger, the people and the sealed bundles of one home."""

import getpass
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from securesystemslib.signer import Signer

from orchestration.settings import Settings
from serving import approval, challenges, deployment
from serving.bundle import Bundle
from serving.challenges import Challenge
from serving.deployment import Deployment, Shelves
from serving.difference import difference, in_place_of
from serving.evidence import Pack, write_evidence
from serving.key_agent import AgentSigner
from serving.keys import create_key, is_encrypted, load_key
from serving.ledger import Entry, Ledger
from serving.people import Authority, People, authority, begin, changes, load_people, propose
from serving.release import find, newest, read_spec, record_sealed, sealed_bundles
from serving.standing import Approval

PROJECT = Path(__file__).parent.parent
_NAME = re.compile(r"\w[\w.@' -]{0,63}")


class NothingSealed(LookupError):
    """No bundle of this name has been sealed yet."""


def who() -> str:
    """The person who started this process: MEWS_PERSON, or the account of the machine."""
    return os.environ.get("MEWS_PERSON") or getpass.getuser()


@dataclass(frozen=True)
class Approvals:
    """The ledger and the people of one home, and the bundles that wait for them."""

    settings: Settings

    @cached_property
    def ledger(self) -> Ledger:
        """The record of what was sealed, signed and deployed."""
        self.settings.ledger.parent.mkdir(parents=True, exist_ok=True)
        return Ledger(self.settings.ledger)

    @property
    def people(self) -> People:
        """Who may sign; read anew each time, for the file may change."""
        return load_people(self.settings.people)

    @property
    def shelves(self) -> Shelves:
        """Where sealed bundles lie."""
        return Shelves(self.settings.releases, self.settings.policies)

    def bundles(self) -> list[Bundle]:
        """Every sealed bundle: releases, policies, hotfixes, each oldest first."""
        roots = (self.settings.releases, self.settings.policies, self.shelves.hotfixes)
        entries = self.ledger.entries()
        return [bundle for root in roots for bundle in sealed_bundles(root, entries)]

    def newest_release(self, detector: str) -> Bundle:
        """The release that was sealed last."""
        return _there(newest(self.settings.releases, detector, self.ledger.entries()), f"release of {detector}")

    def newest_policy(self, policy: str) -> Bundle:
        """The policy that was sealed last."""
        return _there(newest(self.settings.policies, policy, self.ledger.entries()), f"policy {policy}")

    def record_sealed(self, bundle: Bundle, *, by: str) -> None:
        """Let the ledger say that a bundle was sealed, and so which is the newest."""
        record_sealed(self.ledger, bundle, by=by)

    def find(self, prefix: str) -> Bundle:
        """The one release, policy or hotfix whose digest starts so."""
        roots = (self.settings.policies, self.shelves.hotfixes)
        return find(next((r for r in roots if any(r.glob(f"*/{prefix}*"))), self.settings.releases), prefix)

    def release_of(self, detector: str, prefix: str) -> Bundle:
        """The one release of a detector whose digest starts so; raises ValueError for any other bundle."""
        release = self.find(prefix)
        if release.name != detector or release.kind != "release":
            raise ValueError(f"{prefix!r} is {release.subject}; it must be a release of {detector}")
        return release

    def status(self, bundle: Bundle) -> Approval:
        """Where a bundle stands now."""
        return approval.status(self.ledger, self.people, bundle)

    def days_left(self, bundle: Bundle) -> float:
        """For how many days more a bundle is approved, if nobody signs again."""
        return ((self.status(bundle).expires_us or 0) / 1_000_000 - time.time()) / 86_400

    def sign(self, bundle: Bundle, signer: Signer) -> Approval:
        """Approve a bundle with a person's key."""
        return approval.sign(self.ledger, self.people, bundle, signer=signer)

    def reject(self, bundle: Bundle, signer: Signer, *, reason: str) -> Approval:
        """Refuse a bundle for good."""
        return approval.reject(self.ledger, self.people, bundle, signer=signer, reason=reason)

    def revoke(self, bundle: Bundle, signer: Signer, *, reason: str) -> Approval:
        """Take an approval back for good."""
        return approval.revoke(self.ledger, self.people, bundle, signer=signer, reason=reason)

    def signer(self, person: str, key: Path | None = None, *, ask: Callable[[], str] | None = None) -> Signer:
        """A person's key: a file, by default `keys/NAME.pem`, else what an ssh-agent holds.

        The passphrase of an encrypted file is in MEWS_PASSPHRASE, or is asked for.
        """
        path = key or self.key_of(person)
        if key is None and not path.exists():
            return AgentSigner(self._public_key_of(person))
        passphrase = os.environ.get("MEWS_PASSPHRASE") or None
        if passphrase is None and ask is not None and is_encrypted(path):
            passphrase = ask()
        return load_key(path, passphrase)

    def _public_key_of(self, person: str) -> str:
        found = next((p.public_key for p in self.people.people if p.name == person), None)
        if found is None or not found.startswith("ed25519:"):
            raise ValueError(f"{person!r} has no Ed25519 key in {self.settings.people.name} that could sign here")
        return found

    def key_of(self, person: str) -> Path:
        """Where a person's key lies when no other place is named; raises ValueError for what cannot name a file."""
        if not _NAME.fullmatch(person):
            raise ValueError(f"name is {person!r}; it must match {_NAME.pattern}")
        return self.settings.home / "keys" / f"{person}.pem"

    def servable(self, detector: str) -> Deployment | None:
        """What may be served now: the newest deployment whose release and policy are approved."""
        return deployment.servable(self.ledger, self.people, self.shelves, detector)

    def served(self, detector: str) -> tuple[Bundle, Bundle]:
        """The release and the policy that are served now; raises ValueError where none are."""
        if (now := self.servable(detector)) is None:
            raise ValueError(f"no release of {detector} is served")
        return find(self.settings.releases, now.release), find(self.settings.policies, now.policy)

    def challenge(self, release: Bundle, *, share: float) -> Challenge:
        """Let a signed release run beside what is served now, under the same policy."""
        _, policy = self.served(release.name)
        return challenges.challenge(self.ledger, self.people, release, policy, by=who(), share=share)

    def end_challenge(self, release: Bundle, *, reason: str) -> Challenge:
        """Stop the challenge of a release; raises ValueError where it has none."""
        found = next((one for one in self.challenges() if one.release == release.digest), None)
        if found is None:
            raise ValueError(f"{release.subject} {release.digest[:12]} challenges nobody")
        challenges.end(self.ledger, found, by=who(), reason=reason)
        return found

    def challenges(self) -> list[Challenge]:
        """The challenges that run."""
        return [one for found in challenges.challenges(self.ledger.entries()).values() for one in found]

    def was_deployed(self, release: Bundle, policy: Bundle) -> bool:
        """Whether this release was ever deployed under this policy, also if it no longer is."""
        past = deployment.deployments(self.ledger, release.name)
        return (release.digest, policy.digest) in {(d.release, d.policy) for d in past}

    def was_served(self, detector: str) -> bool:
        """Whether anything was ever deployed for a detector."""
        return deployment.deployed(self.ledger, detector) is not None

    def deploy(self, release: Bundle, policy: Bundle, *, hotfix: Bundle | None = None) -> Deployment:
        """Ask for a signed release to be served under a signed policy, perhaps with a signed change."""
        return deployment.deploy(self.ledger, self.people, release, policy, by=who(), hotfix=hotfix)

    def rollback(self, detector: str) -> Deployment:
        """Go back to what was served before and may still be served."""
        return deployment.rollback(self.ledger, self.people, self.shelves, detector, by=who())

    def difference(self, bundle: Bundle) -> list[str]:
        """What approving a bundle would change, in sentences."""
        return difference(bundle, in_place_of(self.ledger, self.people, self.shelves, bundle))

    def evidence(self, detector: str, prefix: str, target: Path | None) -> Pack:
        """Write what answers for a release, with the policy that it was last deployed under, else the newest."""
        release = self.release_of(detector, prefix)
        past = deployment.deployments(self.ledger, detector)
        under = next((d.policy for d in past if d.release == release.digest), None)
        shelf, name = self.settings.policies, read_spec(release).policy
        policy = find(shelf, under) if under else newest(shelf, name, self.ledger.entries())
        folder = target or self.settings.home / "evidence" / f"{detector}-{release.digest[:12]}"
        return write_evidence(self.ledger, self.people, release, policy, target=folder)

    def begin(self) -> Entry:
        """Put the first version of people.yaml in force."""
        return begin(self.ledger, self.people)

    def propose(self, signer: Signer) -> bool:
        """Sign people.yaml as it stands; true when that put it in force."""
        return propose(self.ledger, self.people, signer=signer)

    def authority(self) -> Authority:
        """Who counts now."""
        return authority(self.ledger.entries(), self.people)

    def people_changes(self) -> list[str]:
        """What people.yaml says that nobody reviewed yet, one sentence each."""
        return changes(self.ledger.entries(), self.people)

    def introduce(self, roles: dict[str, str]) -> None:
        """Make keys for people with one role each and begin the ledger with them; for a new home only."""
        people = [
            {"name": name, "roles": [role], "public_key": create_key(self.key_of(name), None)}
            for name, role in roles.items()
        ]
        self.settings.people.write_text(yaml.safe_dump({"people": people}, sort_keys=False), encoding="utf-8")
        begin(self.ledger, self.people)


def _there(bundle: Bundle | None, what: str) -> Bundle:
    if bundle is None:
        raise NothingSealed(f"no {what} has been sealed yet")
    return bundle
