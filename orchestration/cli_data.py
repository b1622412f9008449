"""The commands about what is kept of people."""

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(forget)


def forget(
    account: Annotated[str, typer.Argument(help="The account id, as events bring it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove everything about an account from log, lake, features, online state and training sets, and say what was."""
    from rich.console import Console

    from orchestration.forgetting import forget as forget_account
    from orchestration.settings import Settings

    if not yes:
        typer.confirm("Remove everything about this account? It cannot be undone", abort=True)
    Console().print(forget_account(Settings.from_environment(), account).to_table())
