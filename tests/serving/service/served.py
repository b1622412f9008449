"""The service as it runs in production: `bentoml serve` in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 300.0


@dataclass(frozen=True)
class Served:
    """Where it listens and which process is its master."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def served(
    home: Path,
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    wait_for: str = "/readyz",
    python: str = sys.executable,
    target: str = "serving.service:Mews",
    cwd: Path | None = None,
) -> Iterator[Served]:
    """Serve a home until the end of the block, then drain it; `target` is our service, or the folder of a Bento."""
    port = free_port()
    command = [python, "-m", "bentoml", "serve", target, "--port", str(port)]
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "MEWS_HOME": str(home), "PYTHONPATH": "."}
    with (log or Path(os.devnull)).open("wb") as output:
        server = subprocess.Popen(
            [*command, "--timeout-graceful-shutdown", "20"],
            env={**os.environ, **quiet, **(env or {})},
            stdout=output,
            stderr=output,
            cwd=cwd,
            start_new_session=True,
        )
        try:
            wait_until(f"http://127.0.0.1:{port}{wait_for}", server)
            yield Served(port, server.pid)
        finally:
            server.terminate()  # its master ends the workers, which lead sessions of their own
            assert server.wait(60) == 0


def wait_until(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Return when a path answers 200."""
    deadline = time.monotonic() + START_S
    while _status(url) != 200:
        assert server.poll() is None, "the server ended before it was ready"
        assert time.monotonic() < deadline, f"{url} did not answer in {START_S:g} s"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0
