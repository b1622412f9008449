"""The commands of people who approve: what waits, sign, reject, revoke, deploy, roll back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from orchestration.approvals import Approvals

DIGEST = Annotated[str, typer.Argument(help="Digest of a release or policy; 8 characters are enough.")]
DETECTOR = Annotated[str, typer.Argument(help="Name of a detector.")]
PERSON = Annotated[str, typer.Option("--as", help="Your name in people.yaml.")]
KEY = Annotated[Path | None, typer.Option(help="Your private key; default: keys/NAME.pem in MEWS_HOME.")]
REASON = Annotated[str, typer.Option(help="Why; kept in the ledger.")]
YES = Annotated[bool, typer.Option("--yes", help="Do not show the card and ask.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (releases, sign, reject, revoke, deploy, hotfix, deploy_hotfix, recheck, rollback, status, evidence):
        app.command()(command)


def releases() -> None:
    """List sealed releases and policies with their approvals."""
    from rich.console import Console
    from rich.table import Table

    desk = approvals()
    table = Table("kind", "name", "digest", "state", "signed by", "waits for")
    for bundle in desk.bundles():
        approval = desk.status(bundle)
        signed = ", ".join(f"{s.person} ({s.role})" for s in approval.signed_by)
        table.add_row(
            bundle.kind, bundle.name, bundle.digest[:12], approval.state, signed, ", ".join(approval.waiting_for)
        )
    Console().print(table)


def sign(digest: DIGEST, person: PERSON, key: KEY = None, yes: YES = False) -> None:
    """Show the evaluation card, ask for the statement, and sign the digest with your key."""
    from rich.console import Console
    from rich.markdown import Markdown

    from serving.bundle import read

    desk = approvals()
    bundle = desk.find(digest)
    if not yes:
        if "card.md" in bundle.files:
            Console().print(Markdown(read(bundle, "card.md").decode()))
        for sentence in desk.difference(bundle):
            typer.echo(f"changes what is served: {sentence}")
        typer.confirm(
            f"I, {person}, read this and approve {bundle.kind} {bundle.name} {bundle.digest[:12]}", abort=True
        )
    approval = desk.sign(bundle, signer_of(desk, person, key))
    typer.echo(f"{bundle.name} {bundle.digest[:12]} is {approval.state}: {approval.reason}")


def reject(digest: DIGEST, person: PERSON, reason: REASON, key: KEY = None) -> None:
    """Refuse a release for good, with a reason."""
    desk = approvals()
    bundle = desk.find(digest)
    approval = desk.reject(bundle, signer_of(desk, person, key), reason=reason)
    typer.echo(f"{bundle.name} {bundle.digest[:12]} is {approval.state}: {approval.reason}")


def revoke(digest: DIGEST, person: PERSON, reason: REASON, key: KEY = None) -> None:
    """Take an approval back for good: the service returns to the approved release before it."""
    desk = approvals()
    bundle = desk.find(digest)
    approval = desk.revoke(bundle, signer_of(desk, person, key), reason=reason)
    typer.echo(f"{bundle.name} {bundle.digest[:12]} is {approval.state}: {approval.reason}")


def deploy(detector: DETECTOR) -> None:
    """Deploy the newest release of a detector, if it is approved."""
    from orchestration.runs import run_detector
    from orchestration.settings import Settings

    result = run_detector(Settings.from_environment(), detector, stages=["deployment"], is_shown=True)
    typer.echo(result.line)
    raise typer.Exit(0 if result.is_success else 1)


def hotfix(
    detector: DETECTOR,
    change: Annotated[Path, typer.Option(help="YAML: moves, a list of {label, threshold, where}.", exists=True)],
    *,
    reason: REASON,
    most: Annotated[int, typer.Option(help="Actions that it may do in a day.")] = 100,
    days: Annotated[int, typer.Option(help="Days of logged decisions that it is tried on.")] = 7,
) -> None:
    """Seal a rule or threshold change of what is served now, after trying it on logged decisions."""
    from orchestration.hotfixes import seal
    from serving.cuts import Moves
    from training.contract_file import read_contract

    moves = read_contract(change, Moves).moves
    bundle, found = seal(approvals(), detector, moves, reason=reason, most=most, days=days)
    typer.echo(f"on {found.num_decisions:,} logged decisions {found.num_harder} end harder, {found.num_milder} milder")
    typer.echo(f"next: mews sign {bundle.digest[:12]} --as NAME, then mews deploy-hotfix {bundle.digest[:12]}")


def deploy_hotfix(digest: DIGEST) -> None:
    """Serve what is served now with a signed hotfix; it ends by itself after a day unless all roles sign."""
    from orchestration.hotfixes import deploy

    done = deploy(approvals(), digest)
    typer.echo(f"{done.detector} is served with hotfix {done.hotfix[:12]}; the service follows within seconds")


def recheck(detector: DETECTOR) -> None:
    """Hold what is served to its promises, on live events that people reviewed; exits with 1 where one is broken."""
    from orchestration.promises import recheck as hold

    found = hold(approvals(), detector)
    for one in found:
        typer.echo(one.in_words())
    raise typer.Exit(1 if any(one.is_broken for one in found) else 0)


def rollback(detector: DETECTOR) -> None:
    """Go back to the approved release that was deployed before."""
    past = approvals().rollback(detector)
    typer.echo(f"{detector} goes back to {past.release[:12]}; the service follows within seconds")


def status() -> None:
    """Say per detector what is deployed, what waits for signatures and what the last run said."""
    from rich.console import Console
    from rich.table import Table

    desk = approvals()
    table = Table("detector", "deployed", "newest release", "state", "waits for")
    for name, newest in sorted({b.name: b for b in desk.bundles() if b.kind == "release"}.items()):
        approval = desk.status(newest)
        current = desk.servable(name)
        table.add_row(
            name,
            current.release[:12] if current else "nothing",
            newest.digest[:12],
            approval.state,
            ", ".join(approval.waiting_for),
        )
    Console().print(table)


def evidence(
    detector: DETECTOR,
    digest: DIGEST,
    output: Annotated[Path | None, typer.Option(help="New folder; default: evidence/ in MEWS_HOME.")] = None,
) -> None:
    """Write a release's evidence: a folder with a page to read and a check that needs neither Mews nor a network."""
    pack = approvals().evidence(detector, digest, output)
    for claim in pack.claims:
        typer.echo(f"holds: {claim}")
    typer.echo(f"open {pack.page}; check it with `python check.py` in its folder")


def signer_of(desk: "Approvals", person: str, key: Path | None) -> "Signer":
    """A person's key: from its file, with the passphrase asked for, or from an ssh-agent."""
    return desk.signer(person, key, ask=lambda: typer.prompt(f"passphrase of {person}", hide_input=True))


def approvals() -> "Approvals":
    """What the commands act on."""
    from orchestration.approvals import Approvals
    from orchestration.settings import Settings

    return Approvals(Settings.from_environment())
