"""The command line `mews`: each command reads its options, calls one function, prints what came of it."""

import atexit
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestration import cli_data, cli_ledger, cli_mistakes, cli_releases, cli_serving

app = typer.Typer(
    name="mews",
    cls=cli_mistakes.Commands,
    help="Train, prove, release, serve, watch and undo the detectors that guard an AI service.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_releases.add_to(app)
cli_data.add_to(app)
cli_ledger.add_to(app)
cli_serving.add_to(app)


def _end_quietly() -> None:
    """DuckDB 2.0 reports its own bindings as leaked when an interpreter ends; nobody who reads that can act on it."""
    if "duckdb" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


atexit.register(_end_quietly)  # the first to be registered is the last to run
warnings.filterwarnings("ignore", ".* is currently in (beta|preview)")  # Dagster is pinned: read before a bump

PROFILE = Annotated[
    Literal["embedded", "team"],
    typer.Option(help="embedded: SQLite, no servers; team: PostgreSQL and Redis.", envvar="MEWS_PROFILE"),
]
DETECTOR = Annotated[str, typer.Argument(help="Name of a detector: a folder under orchestration/defs/.")]
_WIRED = ("up", "demo")  # which take a profile as an option, and wire what they start


@app.callback()
def _wire(context: typer.Context) -> None:
    if os.environ.get("MEWS_PROFILE") == "team" and context.invoked_subcommand not in _WIRED:
        from orchestration.stack import WIRING, read_env_files

        unset = {name: value for name, value in read_env_files(WIRING["team"]).items() if not os.environ.get(name)}
        os.environ.update(unset)


@app.command()
def demo(
    *,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 7,
    profile: PROFILE = "embedded",
    num_accounts: Annotated[int, typer.Option("--accounts", help="Honest accounts of the world.")] = 4_000,
    retrained: Annotated[str, typer.Option(help="The detector for which one day's labels are enough.")] = "content",
    only: Annotated[list[str], typer.Option(help="A detector that takes part; may be repeated. Default: all.")] = [],  # noqa: B006  # typer copies it
) -> None:
    """From raw events to approved, answering detectors, in one go, in a simulated service whose truth is known."""
    from orchestration.demo import run_demo

    run_demo(seed=seed, profile=profile, num_accounts=num_accounts, retrained=retrained, only=only)


@app.command()
def demo_real(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.", envvar="MEWS_DATA")] = Path("../shared/data"),
) -> None:
    """The same chain on public data: texts with eleven labels, and the Fraud Detection Handbook's card payments."""
    from orchestration.demo_real import run_demo_real

    run_demo_real(data)


@app.command()
def up(
    *,
    profile: PROFILE = "embedded",
    dagster_port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    service_port: Annotated[int, typer.Option(help="Port of the service.")] = 8080,
    code_port: Annotated[int, typer.Option(help="Port on which Dagster finds the detectors.")] = 4266,
) -> None:
    """Dagster, MLflow and the service under one supervisor; Ctrl-C stops all."""
    from orchestration.stack import Ports
    from orchestration.stack import up as keep_up

    ports = Ports(dagster=dagster_port, mlflow=mlflow_port, service=service_port, code=code_port)
    raise typer.Exit(keep_up(profile, ports))


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A CSV, JSONL or Parquet file, or a folder of them.", exists=True)],
    mapping: Annotated[Path, typer.Option(help="YAML that names columns, labels and times.", exists=True)],
    replace: Annotated[
        bool, typer.Option("--replace", help="Withdraw days that the source held and holds no more.")
    ] = False,
) -> None:
    """Bring events and labels from a file into the lake's inbox; importing again changes nothing."""
    from rich.console import Console

    from orchestration.importing import import_events, load_mapping
    from orchestration.settings import Settings
    from serving.vault import Vault

    settings, known = Settings.from_environment(), load_mapping(mapping)
    report = import_events(settings.lake, source, known, vault=Vault(settings.home / "keys"), replace=replace)
    Console().print(report.to_table())
    raise typer.Exit(0 if report.num_rejected == 0 else 3)


@app.command()
def run(
    detector: DETECTOR,
    until: Annotated[str, typer.Option(help="Last stage: training_set, candidate, release, deployment.")] = "release",
) -> None:
    """Run a detector's chain without the UI, where it is seen later."""
    from orchestration.runs import run_detector
    from orchestration.settings import Settings

    result = run_detector(Settings.from_environment(), detector, until=until, is_shown=True)
    typer.echo(result.line)
    raise typer.Exit(0 if result.is_success else 1)


@app.command()
def search(detector: DETECTOR) -> None:
    """Look for better settings of a detector's fit on its newest training set; a search that was stopped goes on."""
    from orchestration.runs import run_detector
    from orchestration.settings import Settings

    result = run_detector(Settings.from_environment(), detector, stages=["search"], is_shown=True)
    typer.echo(result.line)
    raise typer.Exit(0 if result.is_success else 1)


@app.command()
def score(
    detector: DETECTOR,
    input_: Annotated[Path, typer.Option("--input", help="Parquet with the event's columns.", exists=True)],
    output: Annotated[Path, typer.Option("--output", help="Parquet to write.")],
    release: Annotated[str | None, typer.Option(help="Digest of a release; default: the deployed one.")] = None,
) -> None:
    """Score a file: one probability column per label, and the decision."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from orchestration.scoring import score_file
    from orchestration.settings import Settings

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        rows = bar.add_task("rows", total=None)
        num_rows = score_file(
            Settings.from_environment(),
            detector,
            input_,
            output=output,
            prefix=release,
            report=lambda done, total: bar.update(rows, completed=done, total=total),
        )
    typer.echo(f"{num_rows:,} rows scored into {output}")


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Who will use it; shown in the decision log.")],
    scope: Annotated[list[str], typer.Option(help="decide, bulk or read; may be repeated.")] = ["decide", "read"],  # noqa: B006  # typer copies it
) -> None:
    """Make an API key for the service; its secret is printed once and kept nowhere."""
    from orchestration.settings import Settings
    from serving.auth import create_key, parse_scopes

    typer.echo(create_key(Settings.from_environment().home / "api_keys.json", name, scopes=parse_scopes(scope)))


if __name__ == "__main__":
    app()
