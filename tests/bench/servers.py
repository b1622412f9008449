"""Servers side by side on this machine: started together, loaded in turn, measured as whole process trees."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.load import Outcome, Plan, load, tree_cpu_s
from tests.serving.service.served import free_port, wait_until


@dataclass(frozen=True)
class Server:
    """One of them: where it listens, which process it is, and what it is asked."""

    port: int
    pid: int
    requests: dict[str, list[bytes]]


@dataclass(frozen=True)
class Measured:
    """One load of one server."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    num_failed: int


@contextmanager
def running(
    command: list[str], *, port: int, ready: str, env: Mapping[str, str], log: Path, start_s: float = 120.0
) -> Iterator[int]:
    """A server's process while it answers; its whole tree ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_until(f"http://127.0.0.1:{port}{ready}", process)
            yield process.pid
        finally:
            tree = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
            process.terminate()
            process.wait(60)
            for left in tree:
                if left.is_running():
                    left.kill()


def measure(server: Server, kind: str, *, connections: int, most: int, rate: float = 0.0) -> Measured:
    """Ask and say what it cost."""
    before = tree_cpu_s(server.pid)
    outcome = load(Plan(server.port, server.requests[kind], connections, seconds=30.0, most=most, rate=rate))
    cpu_s = tree_cpu_s(server.pid) - before
    return measured(outcome, cpu_s)


def measured(outcome: Outcome, cpu_s: float) -> Measured:
    """The figures of one load."""
    seconds = sorted(outcome.seconds)
    num = len(seconds)
    return Measured(
        cpu_us=cpu_s / num * 1e6,
        per_second=num / outcome.wall_s,
        p50_ms=seconds[num // 2] * 1e3,
        p99_ms=seconds[min(num - 1, int(num * 0.99))] * 1e3,
        num_failed=num - outcome.num(200),
    )


@contextmanager
def peers(bundle: Path, folder: Path, requests: dict[str, dict[str, list[bytes]]]) -> Iterator[dict[str, Server]]:
    """FastAPI, LitServe and MLflow with the scorer of one bundle; `requests` names those that are wanted."""
    port = {name: free_port() for name in requests}
    uvicorn = [sys.executable, "-m", "uvicorn", "--factory", "tests.bench.peers:fastapi_app", "--no-access-log"]
    mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"]
    commands = {
        "fastapi": ([*uvicorn, "--port", str(port.get("fastapi"))], "/docs"),
        "litserve": ([sys.executable, "-m", "tests.bench.peers", str(port.get("litserve"))], "/health"),
        "mlflow": ([*mlflow, "--port", str(port.get("mlflow")), "-m", str(folder / "mlflow")], "/health"),
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
    env = {"BENCH_BUNDLE": str(bundle), "PYTHONPATH": ".", "PATH": path}
    with ExitStack() as stack:
        servers = {}
        for name, asked in requests.items():
            command, ready = commands[name]
            log = folder / f"{name}.log"
            pid = stack.enter_context(running(command, port=port[name], ready=ready, env=env, log=log))
            servers[name] = Server(port[name], pid, asked)
        yield servers
