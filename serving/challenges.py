"""Who challenges a champion: signed releases that score beside it (shadow) or answer a share of accounts (canary).

A challenge is an entry of the ledger like a deployment, and needs the same approvals: it sees what people wrote. It
ends by an entry, by a later one of the same release, or when that release is deployed. A canary answers people, so it
ends with every deployment of its detector: a new policy or a hotfix holds for all accounts. While a hotfix is deployed
none begins, as a hotfix fits one release alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.approval import NotApproved, require_servable
from serving.bundle import Bundle
from serving.deployment import deployed
from serving.ledger import Entry, Ledger
from serving.people import People

MOST_SHARE = 0.5  # a canary that answers more than the champion is none


@dataclass(frozen=True)
class Challenge:
    """One release with one policy; `share` of the accounts is answered by it, 0 for a shadow."""

    detector: str
    release: str
    policy: str
    share: float
    by: str
    at_us: int
    number: int

    @classmethod
    def of(cls, entry: Entry) -> "Challenge":
        """Read a `challenging` entry of the ledger."""
        body = entry.body
        return cls(
            body["detector"], body["digest"], body["policy"], body["share"], body["by"], entry.at_us, entry.number
        )


def challenge(
    ledger: Ledger, people: People, release: Bundle, policy: Bundle, *, by: str, share: float = 0.0
) -> Challenge:
    """Let a signed release challenge the champion of its detector; raises NotApproved, BundleAltered or ValueError."""
    if not 0 <= share <= MOST_SHARE:
        raise ValueError(f"share is {share}; it must lie between 0 (a shadow) and {MOST_SHARE}")
    for bundle, kind in ((release, "release"), (policy, "policy")):
        if require_servable(ledger, people, bundle.path).kind != kind:
            raise NotApproved(f"{bundle.subject} {bundle.digest[:12]} is no {kind}")
    body = {
        "detector": release.name,
        "digest": release.digest,
        "policy": policy.digest,
        "share": share,
        "by": by,
    }
    with ledger.writing() as page:
        if share and (now := deployed(ledger, release.name)) and now.hotfix:
            raise ValueError(f"share is {share}; it must be 0 while the hotfix {now.hotfix[:12]} is deployed")
        return Challenge.of(page.append("challenging", body))


def end(ledger: Ledger, challenge: Challenge, *, by: str, reason: str) -> None:
    """Stop a challenge, unless it ended already."""
    with ledger.writing() as page:
        if challenge in challenges(page.entries).get(challenge.detector, ()):
            body = {"detector": challenge.detector, "digest": challenge.release, "by": by, "reason": reason}
            page.append("challenge_ended", body)


def challenges(entries: Sequence[Entry]) -> Mapping[str, Sequence[Challenge]]:
    """The challenges of each detector that last."""
    lasting: dict[tuple[str, str], Challenge] = {}
    for entry in entries:
        if entry.kind == "challenging":
            found = Challenge.of(entry)
            lasting[found.detector, found.release] = found
        elif entry.kind in ("challenge_ended", "deployed"):
            lasting.pop((entry.body["detector"], entry.body["digest"]), None)
        if entry.kind == "deployed":
            lasting = {key: c for key, c in lasting.items() if not c.share or c.detector != entry.body["detector"]}
    detectors = {detector for detector, _ in lasting}
    return {name: [c for c in lasting.values() if c.detector == name] for name in sorted(detectors)}
