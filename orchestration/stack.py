"""What `mews up` starts; the profiles differ in values only."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestration.child import HOST, Process
from orchestration.settings import INFRA, Profile, Settings

WIRING = {"embedded": [INFRA / "quiet.env"], "team": [INFRA / "quiet.env", INFRA / "team" / "wiring.env"]}
LOGIN = {"embedded": [], "team": ["--app-name", "basic-auth"]}
DRAIN = ["--timeout-graceful-shutdown", "15"]  # BentoML's own default is a day
WORKSPACE = ["-w", str(INFRA / "workspace.yaml")]


class NoTables(RuntimeError):
    """Dagster could not lay down its tables; the message is the last thing that it said."""


@dataclass(frozen=True)
class Ports:
    """Where each part listens on this machine."""

    dagster: int = 3000
    mlflow: int = 5000
    service: int = 8080
    code: int = 4266

    @classmethod
    def free(cls) -> Self:
        """Four ports on which nothing listens now."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(4)]
            return cls(*(one.getsockname()[1] for one in sockets))


def up(profile: Profile, ports: Ports) -> int:
    """Run everything until Ctrl-C, and return the exit code of the command."""
    from rich.console import Console

    from orchestration.supervisor import AlreadyRunning, PortTaken, run

    console, home = Console(), Settings.from_environment().home
    try:
        table = processes(home, profile=profile, ports=ports)
        run(table, home=home, console=console, prepare=lambda: create_tables(table[0].env))
    except (AlreadyRunning, PortTaken, NoTables) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    return 0


def processes(
    home: Path, *, profile: Profile, ports: Ports, definitions: str = "orchestration.definitions"
) -> list[Process]:
    """The table: what runs, where it answers, and how one sees that it is well."""
    env = environment(home, profile=profile, ports=ports)
    return [
        Process(
            name="mlflow",
            command=module("mlflow", "server", "--host", HOST, "--port", ports.mlflow, "--workers", 1, *LOGIN[profile]),
            env=env,
            port=ports.mlflow,
            health_path="/health",
        ),
        Process(
            name="service",
            command=module("bentoml", "serve", "serving.service:Mews", "--host", HOST, "--port", ports.service, *DRAIN),
            env=env,
            port=ports.service,
            health_path="/healthz",  # alive; a service without a release is alive and not ready
        ),
        Process(
            name="code",
            command=module("orchestration.code_server", "-m", definitions, "-h", HOST, "-p", ports.code),
            env=env,
            port=ports.code,
        ),
        Process(
            name="dagster",
            command=module("dagster_webserver", *WORKSPACE, "-h", HOST, "-p", ports.dagster),
            env=env,
            port=ports.dagster,
            health_path="/server_info",
        ),
        Process(name="daemon", command=module("dagster._daemon", "run", *WORKSPACE), env=env),
    ]


def create_tables(env: Mapping[str, str]) -> None:
    """Configure Dagster and lay down its tables once; three processes that do so at once get in each other's way."""
    settings = Settings.from_environment(env)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(settings.dagster_yaml, settings.dagster_home / "dagster.yaml")
    if (settings.dagster_home / "history").exists():
        return
    command = module("dagster", "instance", "migrate")
    done = subprocess.run(command, env=dict(env), check=False, capture_output=True, text=True)
    if done.returncode:
        raise NoTables(f"Dagster could not make its tables: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs a module in this very environment."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def environment(home: Path, *, profile: Profile, ports: Ports) -> dict[str, str]:
    """What a child is told: the laptop's values, over them the profile's wiring, over that what the user has set."""
    laptop = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS_DESTINATION": str(home / "mlartifacts"),
        "MEWS_SERVICE_URL": f"http://localhost:{ports.service}",
        "MLFLOW_UVICORN_OPTS": "--log-level warning",  # a line for each health probe fills the log
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nine idle processes for jobs that nobody here starts
        "MLFLOW_AUTH_CONFIG_PATH": str(INFRA / "team" / "mlflow_auth.ini"),  # read only where a login is on
    }
    fixed = {
        "MEWS_HOME": str(home),
        "MEWS_PROFILE": profile,
        "DAGSTER_HOME": str(home / "dagster"),
        "MEWS_CODE_HOST": HOST,
        "MEWS_CODE_PORT": str(ports.code),
    }
    wiring = read_env_files(WIRING[profile])
    if "MLFLOW_TRACKING_URI" in wiring:  # a server; on a laptop runs write to SQLite without one
        wiring["MLFLOW_TRACKING_URI"] = f"http://{HOST}:{ports.mlflow}"
    return {**laptop, **wiring, **os.environ, **fixed}


def read_env_files(paths: Sequence[Path]) -> dict[str, str]:
    """The variables of files as Docker Compose reads them: NAME=VALUE, one a line, `#` begins a comment line."""
    lines = [line.strip() for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}
