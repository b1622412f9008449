"""What a command answers where it cannot do what it was asked: one line that says why, and the exit code 1."""

import os
from typing import Any

import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """All commands; with MEWS_DEBUG set the traceback of what they refuse is shown instead."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except _told() as error:
            if os.environ.get("MEWS_DEBUG"):
                raise
            typer.secho(f"error: {in_words(error)}", fg="red", err=True)
            raise typer.Exit(1) from None


def in_words(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = f"nothing is named {error}" if isinstance(error, KeyError) else str(error)
    return "; ".join(text.splitlines()) or type(error).__name__


def _told() -> tuple[type[Exception], ...]:
    """What people can act on by its message alone; looked up when something was raised, so that help stays quick."""
    from orchestration.forgetting import StillWritten
    from orchestration.story import HomeInUse, StageFailed
    from serving.approval import NotApproved, SigningRefused
    from serving.deployment import DeploymentRefused
    from serving.hotfix import HotfixRefused
    from serving.ledger import LedgerAltered
    from serving.release import GateNotPassed
    from serving.sealed_files import BundleAltered
    from serving.statement import SignatureInvalid

    files = (FileNotFoundError, FileExistsError, PermissionError)
    refused = (NotApproved, SigningRefused, DeploymentRefused, HotfixRefused, GateNotPassed)
    altered = (LedgerAltered, BundleAltered, SignatureInvalid)
    return (ValueError, LookupError, *files, *refused, *altered, HomeInUse, StageFailed, StillWritten)
