"""The command line `mews`: each command reads its options, calls one function, prints what came of it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mews",
    help="Train, prove, release, serve, watch and undo the detectors that guard an AI service.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DETECTOR = Annotated[str, typer.Argument(help="Name of a detector: a folder under orchestration/defs/.")]
DIGEST = Annotated[str, typer.Argument(help="Digest of a release; its first 8 characters are enough.")]
PERSON = Annotated[str, typer.Option("--as", help="Your name in people.yaml.")]
KEY = Annotated[Path | None, typer.Option(help="Your private key; default: keys/NAME.pem in MEWS_HOME.")]
PROFILE = Annotated[str, typer.Option(help="embedded (SQLite, one machine) or team (PostgreSQL, Redis).")]


@app.command()
def demo(
    real: Annotated[bool, typer.Option("--real", help="Use the public data sets in MEWS_DATA, not the world.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 7,
    keep: Annotated[bool, typer.Option(help="Keep what an earlier demo left, instead of starting anew.")] = False,
) -> None:
    """From raw events to approved, answering detectors, in one go."""
    from orchestration import demo as story

    story.run_real(keep=keep) if real else story.run(seed=seed, keep=keep)


@app.command()
def up(
    profile: PROFILE = "embedded",
    dagster_port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    service_port: Annotated[int, typer.Option(help="Port of the service.")] = 8080,
) -> None:
    """Dagster, MLflow and the service under one supervisor; Ctrl-C stops all."""
    from orchestration import supervisor

    ports = supervisor.Ports(dagster=dagster_port, mlflow=mlflow_port, service=service_port)
    raise typer.Exit(supervisor.up(profile, ports))


if __name__ == "__main__":
    app()
