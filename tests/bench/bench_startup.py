"""How long things take before they are of use: definitions, command line, service, installation, demo."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.bench.harness import HOME, IS_SMALL, median_ratio, report
from tests.bench.homes import api_key, deployed, ngram_spec, trained
from tests.bench.training_runs import orchestrated_vs_bare
from tests.serving.service.served import served

LIMITS = {
    "definitions_vs_dagster_import": "<= 1.5",
    "cli_help_s": "<= 0.5",
    "orchestrated_vs_bare_train": "<= 1.2",
    "demo_run_s": "<= 360",
}
ABSENT = ("torch", "dagster", "lightning", "great_expectations", "feast", "mlflow")
ROOT = Path(__file__).parents[2]
REPEATS = 3 if IS_SMALL else 7


def wall_s(*command: str, **env: str) -> float:
    """Seconds of one fresh process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    return time.perf_counter() - start


def definitions() -> tuple[list[float], list[float]]:
    """Loading the code location, and importing Dagster alone, in turn."""
    load = "from orchestration.definitions import defs; defs()"
    pairs = [
        (wall_s(sys.executable, "-c", load), wall_s(sys.executable, "-c", "import dagster")) for _ in range(REPEATS)
    ]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def slim() -> dict[str, object]:
    """A fresh environment with only what serving needs: its size, and from start to the first decision in it."""
    if IS_SMALL or shutil.which("uv", path=str(Path(sys.executable).parent)) is None:
        why = "an installation does not fit a smoke run" if IS_SMALL else "uv is not installed"
        keys = ("serve_install_mb", "serve_cold_start_s")
        return {**dict.fromkeys(keys), "why": dict.fromkeys(keys, why)}
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/venv/bin/python"
        uv = [sys.executable, "-m", "uv"]
        links = ["--find-links", os.environ["PIP_FIND_LINKS"]] if os.environ.get("PIP_FIND_LINKS") else []
        subprocess.run([*uv, "venv", "--quiet", f"{folder}/venv"], check=True)
        install = [*uv, "pip", "install", "--quiet", "--python", python, *links]
        subprocess.run([*install, "--constraint", "requirements.txt", ".[serve]"], check=True)
        # du counts blocks, so that hard links into uv's cache are counted once
        listing = subprocess.run(["du", "-sm", f"{folder}/venv"], check=True, capture_output=True, text=True)
        return {
            "serve_install_mb": float(listing.stdout.split()[0]),
            "serve_cold_start_s": cold_start_s(python, folder),
        }


def cold_start_s(python: str, folder: str) -> float:
    """Seconds from start to first decision, the median of three, where torch and the like are not installed."""
    for name in ABSENT:
        found = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False, cwd=folder)
        assert found.returncode, f"{name} is installed beside the service"
    spec = ngram_spec()
    deployed(Path(folder) / "home", trained(Path(folder), spec), spec)
    key = api_key(Path(folder) / "home")
    body = {"detector": "content", "event": {"text": "hello"}}
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        with served(Path(folder) / "home", python=python) as server:
            answer = httpx.post(f"{server.url}/v1/decisions", json=body, headers={"authorization": f"Bearer {key}"})
            times.append(time.perf_counter() - begun)
            assert answer.status_code == 200, answer.text
    return statistics.median(times)


def installation() -> dict[str, object]:
    """Seconds of `make setup` in a fresh clone."""
    if IS_SMALL:
        return {"demo_install_s": None, "demo_install_s_why": "an installation does not fit a smoke run"}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "MAKEFLAGS")}
        begun = time.perf_counter()
        subprocess.run(["make", "setup"], check=True, cwd=folder, env=env, stdout=subprocess.DEVNULL)
        return {"demo_install_s": time.perf_counter() - begun}


def demo_figures() -> dict[str, float | str | None]:
    """What the last `make demo` wrote, or why there is nothing."""
    path = HOME / "demo.json"
    if not path.exists():
        return {"demo_run_s": None, "demo_run_s_why": f"{path} is not there: run `make demo` first"}
    return {"demo_run_s": json.loads(path.read_text(encoding="utf-8"))["seconds"]}


def main() -> None:
    """Measure everything and print it."""
    ours, theirs = definitions()
    cli = [wall_s(sys.executable, "-m", "orchestration.cli", "--help") for _ in range(REPEATS)]
    with tempfile.TemporaryDirectory() as folder:
        ratio, train_s = orchestrated_vs_bare(Path(folder))
    figures: dict[str, object] = {
        "definitions_vs_dagster_import": median_ratio(ours, theirs),
        "cli_help_s": statistics.median(cli),
        "orchestrated_vs_bare_train": ratio,
        **slim(),
        **installation(),
        **demo_figures(),
    }
    raw = {"definitions_s": ours, "dagster_s": theirs, "cli_s": cli, "train_s": train_s}
    report("startup", figures, limits=LIMITS, raw=raw)


if __name__ == "__main__":
    main()
