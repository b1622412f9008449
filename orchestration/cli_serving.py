"""The commands about what runs beside a champion, and about the image that serves a release."""

from pathlib import Path
from typing import Annotated

import typer

from orchestration.cli_releases import DETECTOR, DIGEST, REASON, approvals

challenge = typer.Typer(help="Signed releases that run beside a champion: as a shadow, or for a share of accounts.")


def add_to(app: typer.Typer) -> None:
    """Register the group and the command."""
    app.add_typer(challenge, name="challenge", no_args_is_help=True)
    app.command()(bento)


@challenge.command()
def begin(
    digest: DIGEST,
    share: Annotated[float, typer.Option(help="Of the accounts, answered by it; 0: a shadow that only watches.")] = 0.0,
) -> None:
    """Let a signed release challenge the champion of its detector, under the policy that is in force."""
    desk = approvals()
    begun = desk.challenge(desk.find(digest), share=share)
    kind = f"a canary for {begun.share:.0%} of accounts" if begun.share else "a shadow"
    typer.echo(f"entry {begun.number}: {begun.detector} {begun.release[:12]} runs as {kind}")


@challenge.command()
def end(digest: DIGEST, reason: REASON) -> None:
    """Stop a challenge."""
    desk = approvals()
    stopped = desk.end_challenge(desk.find(digest), reason=reason)
    typer.echo(f"{stopped.detector} {stopped.release[:12]} no longer challenges")


@challenge.command("list")
def show() -> None:
    """List the challenges that run."""
    for one in approvals().challenges():
        typer.echo(f"{one.detector} {one.release[:12]} {one.share:.0%} of accounts, begun by {one.by}")


def bento(detector: DETECTOR) -> None:
    """Build the Bento of what is served now: an immutable image context with code, release and policy."""
    from serving.bento import build

    built = build(*approvals().served(detector), root=Path(__file__).parents[1])
    typer.echo(f"{built.tag} in {built.path}")
