"""What the ledger says about each release, brought to where people look: the model registry and Dagster's pages."""

from orchestration.approvals import Approvals
from orchestration.standing import standing_text
from serving.bundle import Bundle, read
from training.registry_mirror import Story, mirror


def sync(desk: Approvals) -> dict[str, list[str]]:
    """Make the registry say what the ledger says; per detector, what somebody had changed. Each goes to the ledger."""
    releases: dict[str, list[Bundle]] = {}
    for bundle in desk.bundles():
        if bundle.kind == "release" and bundle.facts.get("model_version"):
            releases.setdefault(bundle.name, []).append(bundle)
    return {name: _sync(desk, name, bundles) for name, bundles in releases.items()}


def _sync(desk: Approvals, name: str, bundles: list[Bundle]) -> list[str]:
    served = desk.servable(name)
    digest = served.release if served else None
    # A version that was sealed more than once shows the bundle that is served, else the newest.
    shown = {str(b.facts["model_version"]): b for b in sorted(bundles, key=lambda b: b.digest == digest)}
    champion = next((version for version, b in shown.items() if b.digest == digest), None)
    moved = mirror(
        name,
        [_story(desk, b, is_served=b.digest == digest) for b in shown.values()],
        champion=champion,
        tracking_uri=desk.settings.tracking_uri,
        memory=desk.settings.home / "registry" / f"{name}.json",
    )
    for what in moved:
        desk.ledger.append("registry_moved", {"subject": f"release/{name}", "what": what})
    return moved


def _story(desk: Approvals, bundle: Bundle, *, is_served: bool) -> Story:
    approval = desk.status(bundle)
    tags = {
        "release": bundle.digest,
        "status": approval.state,
        "signed_by": ", ".join(f"{s.person} ({s.role})" for s in approval.signed_by),
        "waits_for": ", ".join(approval.waiting_for),
        "served": str(is_served).lower(),
    }
    text = standing_text(bundle, approval, service_url=desk.settings.service_url)
    card = read(bundle, "card.md").decode()
    return Story(version=str(bundle.facts["model_version"]), tags=tags, text=text, card=card)
