"""Where a release stands, in the words that the registry's and Dagster's pages show."""

import json
from pathlib import Path

from serving.bundle import Bundle
from serving.pages import moment
from serving.standing import Approval


def standing_text(bundle: Bundle, approval: Approval, *, service_url: str) -> str:
    """Where a bundle stands, for whom it waits, and how one signs it: with a key file, or with a passkey."""
    signed = "; ".join(f"{s.person} as {s.role} on {moment(s.at_us)}" for s in approval.signed_by) or "nobody yet"
    lines = [f"**{approval.state}**: {approval.reason}", f"digest `{bundle.digest}`", f"signed by {signed}"]
    if approval.waiting_for:
        page = f"[in the browser]({service_url}/admin/bundles/{bundle.digest})"
        command = f"`mews sign {bundle.digest[:12]} --as NAME`"
        lines.append(f"waits for {' and '.join(approval.waiting_for)}: {command}, or {page}")
    lines += [f"**no longer holds**: {reason}" for reason in approval.broken]
    if approval.expires_us:
        lines.append(f"counts until {moment(approval.expires_us)}")
    return "\n\n".join(lines)


def registered_version(run_dir: Path) -> str | None:
    """The model version that a run was registered as."""
    result = run_dir / "result.json"
    return json.loads(result.read_bytes()).get("mlflow_version") if result.exists() else None
