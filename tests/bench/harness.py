"""What every benchmark shares: scale, interleaved repeats, CPU of a process tree, a table and one JSON object last."""

import gc
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

IS_SMALL = os.environ.get("BENCH_SCALE") == "small"
HOME = Path(os.environ.get("MEWS_HOME") or ".mews")
DATA = Path(os.environ.get("MEWS_DATA", "../shared/data"))


@dataclass(frozen=True)
class Cost:
    """Seconds of one call: wall clock, and CPU of this process with its finished children."""

    wall_s: float
    cpu_s: float


def cost(call: Callable[[], object]) -> Cost:
    """Run a call once and say what it took."""
    gc.collect()
    wall, cpu = time.perf_counter(), _cpu_s()
    call()
    return Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def interleave(calls: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[Cost]]:
    """Run each call once per round, in turn, so that a change of the machine's speed meets all of them."""
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            costs[name].append(cost(call))
    return costs


def median_ratio(above: list[float], below: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak_gb() -> float:
    """The largest resident size that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def report(name: str, figures: Mapping[str, object], *, limits: Mapping[str, str], raw: object = None) -> None:
    """Print the table and, as the last line, the JSON object; keep the raw numbers under `.mews/bench/`."""
    table = Table("figure", "value", "limit", title=f"bench-{name}" + (" (small: not judged)" if IS_SMALL else ""))
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value), limits.get(key, ""))
    Console().print(table)
    target = HOME / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"figures": figures, "raw": raw}, indent=1, default=str), encoding="utf-8")
    print(json.dumps(figures), flush=True)


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
