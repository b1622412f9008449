"""The commands about who may sign and about the record of it: people, keys, the ledger and its witnesses."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.cli_releases import KEY, PERSON, approvals, signer_of

if TYPE_CHECKING:
    pass

people = typer.Typer(help="Who may sign: keys, the first version of people.yaml, changes that two people sign.")
ledger = typer.Typer(help="The record of what was sealed, signed and deployed.")


def add_to(app: typer.Typer) -> None:
    """Register both groups."""
    app.add_typer(people, name="people", no_args_is_help=True)
    app.add_typer(ledger, name="ledger", no_args_is_help=True)


@people.command()
def key(
    name: Annotated[str, typer.Argument(help="Your name in people.yaml.")],
    passphrase: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
) -> None:
    """Make your signing key, and print the line that people.yaml needs."""
    from serving.keys import create_key

    desk = approvals()
    public = create_key(desk.key_of(name), passphrase)
    typer.echo(f"- {{name: {name}, roles: [ROLE], public_key: '{public}'}}")


@people.command()
def begin() -> None:
    """Begin the ledger with people.yaml as it stands; from then on a change takes two people."""
    entry = approvals().begin()
    typer.echo(f"entry {entry.number}: people.yaml {entry.body['digest'][:12]} is in force")


@people.command()
def propose(person: PERSON, key: KEY = None, yes: Annotated[bool, typer.Option("--yes")] = False) -> None:
    """Sign people.yaml as it stands now; the second person's signature puts it in force."""
    desk = approvals()
    for line in desk.people_changes():
        typer.echo(line)
    if not yes:
        typer.confirm(f"I, {person}, reviewed this change of people.yaml", abort=True)
    is_in_force = desk.propose(signer_of(desk, person, key))
    typer.echo(
        f"people.yaml {desk.people.digest[:12]} " + ("is in force" if is_in_force else "waits for a second person")
    )


@people.command()
def show() -> None:
    """Say who may sign as what, and what in people.yaml nobody reviewed."""
    desk = approvals()
    who = desk.authority()
    for one in who.persons.values():
        typer.echo(f"{one.name}: {', '.join(one.roles)} ({one.public_key.partition(':')[0]})")
    for line in desk.people_changes():
        typer.echo(f"not reviewed: {line}")


@ledger.command()
def verify(
    witness: Annotated[list[Path] | None, typer.Option(help="A head that was remembered; may be repeated.")] = None,
) -> None:
    """Read the whole ledger anew; names the first entry that was altered, removed or cut off."""
    from serving.ledger import LedgerAltered
    from serving.witness import verify as verify_ledger

    try:
        head = verify_ledger(approvals().ledger, witness or [])
    except (LedgerAltered, ValueError) as error:
        typer.echo(f"altered: {error}" if isinstance(error, LedgerAltered) else str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"whole: {head.number} entries, head {head.hash}")


@ledger.command("witness")
def remember_head(path: Annotated[Path, typer.Argument(help="A file, best in a git repository elsewhere.")]) -> None:
    """Remember the ledger's head in a file outside, and commit it where that lies in a git work tree."""
    from serving.ledger import LedgerAltered
    from serving.witness import remember

    try:
        head = remember(approvals().ledger, path)
    except (LedgerAltered, ValueError) as error:
        typer.echo(f"not remembered: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"remembered: entry {head.number}, {head.hash}")
