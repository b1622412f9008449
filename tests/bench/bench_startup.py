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

from tests.bench.harness import HOME, IS_SMALL, report

LIMITS = {"definitions_vs_dagster_import": "<= 1.5", "cli_help_s": "<= 0.5", "demo_run_s": "<= 360"}
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


def install_mb(extra: str) -> float | None:
    """Size on disk of a fresh environment that holds one extra at the pinned versions; null where uv is absent."""
    if IS_SMALL or shutil.which("uv", path=str(Path(sys.executable).parent)) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        uv = [sys.executable, "-m", "uv"]
        links = ["--find-links", os.environ["PIP_FIND_LINKS"]] if os.environ.get("PIP_FIND_LINKS") else []
        subprocess.run([*uv, "venv", "--quiet", f"{folder}/venv"], check=True)
        install = [*uv, "pip", "install", "--quiet", "--python", f"{folder}/venv/bin/python", *links]
        subprocess.run([*install, "--constraint", "requirements.txt", f".[{extra}]"], check=True)
        # du counts blocks, so that hard links into uv's cache are counted once
        listing = subprocess.run(["du", "-sm", folder], check=True, capture_output=True, text=True)
        return float(listing.stdout.split()[0])


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
    figures: dict[str, object] = {
        "definitions_vs_dagster_import": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "cli_help_s": statistics.median(cli),
        "serve_install_mb": install_mb("serve"),
        **demo_figures(),
    }
    report("startup", figures, limits=LIMITS, raw={"definitions_s": ours, "dagster_s": theirs, "cli_s": cli})


if __name__ == "__main__":
    main()
