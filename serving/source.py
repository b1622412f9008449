"""What the ledger says is to be served, and how a sealed release becomes a live one."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from feature_repo.online import OnlineFeatures
from serving import challenges, deployment
from serving.approval import require_servable
from serving.bundle import Verified, open_verified
from serving.challenges import Challenge
from serving.cuts import Cut
from serving.deployment import Shelves
from serving.follow import VERIFY_EVERY_S, Deployment
from serving.hotfix import applied
from serving.ledger import Ledger, LedgerAltered
from serving.live import Live
from serving.people import People, load_people
from serving.record import PolicyRef
from serving.release import read_policy
from training import cascade
from training.golden import TOLERANCE, check_golden

_log = logging.getLogger(__name__)


class LedgerSource:
    """Follows the ledger of one home; `reader` gives the online features of a feature service."""

    def __init__(self, home: Path, reader: Callable[[str], OnlineFeatures]) -> None:
        self._ledger, self._people_file = Ledger(home / "ledger" / "ledger.jsonl"), home / "people.yaml"
        self._people: People | None = None  # as last read whole
        self.trouble = ""
        self._stamp: object = None
        self._num_entries = 0  # as last read: a ledger only grows
        self._reader = reader
        self._shelves, self._private = Shelves(home / "releases", home / "policies"), home / "cache" / "bundles"
        self._verified: Verified = {}
        self._checked = -VERIFY_EVERY_S

    def version(self) -> object:
        """The number of entries and the people; each minute the whole chain is verified.

        A home where nothing was recorded yet needs no people. A ledger that is gone is no such home, and raises.
        A people file that is just being written or holds a mistake is trouble, and who counted goes on to count.
        """
        if time.monotonic() - self._checked >= VERIFY_EVERY_S:
            self._ledger.verify()
            self._checked = time.monotonic()
        num_entries = len(self._ledger.entries())
        if num_entries < self._num_entries:
            raise LedgerAltered(f"entry {num_entries + 1} is missing: {self._num_entries} were read before")
        self._num_entries = num_entries
        return (num_entries, self._read_people().digest) if num_entries else 0

    def _read_people(self) -> People:
        """The people file, read again when it changed; raises only while it was never read whole."""
        try:
            seen = self._people_file.stat()
            stamp = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
            if self._people is None or stamp != self._stamp:
                self._people, self._stamp = load_people(self._people_file), stamp
            self.trouble = ""
        except Exception as error:  # an edge: what was signed, revoked and expired is followed all the same
            if self._people is None:
                raise
            if self.trouble != (why := f"the people of before count: {error}"):
                _log.error("%s cannot be read; %s", self._people_file.name, why)
            self.trouble = why
        return self._people

    def wanted(self) -> Mapping[str, Sequence[Deployment]]:
        """What to serve for each detector, and after it what to fall back to."""
        return {
            detector: [
                Deployment(d.detector, d.release, d.policy, d.hotfix)
                for d in deployment.candidates(self._ledger, detector)
            ]
            for detector in deployment.detectors(self._ledger)
        }

    def require_servable(self, asked: Deployment) -> None:
        """Raise unless release and policy are approved, unrevoked and unaltered."""
        people = self._people or self._read_people()
        paths = self._shelves.paths(asked.detector, asked.release, asked.policy_digest, asked.hotfix)
        for kind, path in zip(deployment.KINDS, paths, strict=False):
            require_servable(self._ledger, people, path, kind=kind, verified=self._verified)

    def challenges(self) -> Sequence[Challenge]:
        """Who challenges the champions."""
        return [c for found in challenges.challenges(self._ledger.entries()).values() for c in found]

    def end(self, challenge: Challenge, reason: str) -> None:
        """Record that a challenge ended by its alarm."""
        challenges.end(self._ledger, challenge, by="service", reason=reason)

    def load(self, asked: Deployment) -> Live:
        """Map a private copy of exactly the bytes that were hashed, and compare the golden answers."""
        path = self._shelves.release(asked.detector, asked.release)
        release = open_verified(path, asked.release, private=self._private)
        policy_path = self._shelves.policy(asked.policy_digest)
        policy = read_policy(open_verified(policy_path, asked.policy_digest, private=self._private))
        scorer = cascade.load(release.path)
        if (difference := check_golden(release.path, scorer)) > TOLERANCE:
            _log.warning(
                "%s: golden answers differ by %.1e: this processor rounds otherwise", asked.release, difference
            )
        found = json.loads((release.path / "thresholds.json").read_text(encoding="utf-8"))
        live = Live(
            release=asked.release,
            policy=policy,
            policy_ref=PolicyRef(policy.name, policy.version, asked.policy_digest),
            cuts={label: Cut.of(one) for label, one in found.items()},
            scorer=scorer,
            reader=None,
        )
        if asked.hotfix:
            path = self._shelves.hotfix(asked.detector, asked.hotfix)
            live = applied(live, open_verified(path, asked.hotfix, private=self._private))
        return replace(live, reader=self._reader(live.spec.feature_service)) if live.inputs else live
