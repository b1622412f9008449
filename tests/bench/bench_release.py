"""What trust costs: a 100 MB release verified cold and warm; and whether each bypass is refused and nothing lost."""

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serving.bundle import Bundle, Verified, seal, verify
from tests.bench.harness import IS_SMALL, interleave, median_ratio, report

SIZE = (10 if IS_SMALL else 100) * 10**6
REPEATS = 5 if IS_SMALL else 15
NUM_WARM = 200
BYPASS = "tests/serving/trust/test_bypass.py"
KILLS = "tests/serving/trust/test_ledger.py::test_two_writers_killed_a_hundred_times_lose_and_double_nothing"
LIMITS = {
    "verify_cold_vs_sha256": "<= 1.5",
    "verify_warm_p95_ms": "goal 50",
    "bypasses_refused": ">= 22 and all",
    "ledger_lost": "= 0",
    "evidence_s": "<= 30",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = sealed(Path(folder))
        costs = interleave({"sha256": lambda: hash_all(bundle), "verify": lambda: again(bundle)}, repeats=REPEATS)
        cold = {name: [c.wall_s for c in each] for name, each in costs.items()}
        warm_ms = verified_warm_ms(bundle)
    passed, failed = outcome(BYPASS)
    held, lost = (0, 0) if IS_SMALL else outcome(KILLS)
    figures = {
        "verify_cold_vs_sha256": median_ratio(cold["verify"], cold["sha256"]),
        "verify_warm_p95_ms": statistics.quantiles(warm_ms, n=20)[-1],
        "bypasses_refused": passed,
        "bypasses_not_refused": failed,
        "ledger_lost": lost if held + lost else None,
        "evidence_s": None,
        "why": {"evidence_s": "the evidence pack is not built"}
        | ({"ledger_lost": "a hundred kills do not fit a smoke run"} if IS_SMALL else {}),
    }
    report("release", figures, limits=LIMITS, raw={"cold_s": cold, "warm_ms": warm_ms})


def sealed(folder: Path) -> Bundle:
    """A release whose weights are most of it."""
    (folder / "in").mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    content = len(header).to_bytes(8, "little") + header + os.urandom(SIZE)
    (folder / "in" / "model.safetensors").write_bytes(content)
    for name in ("spec.json", "encoder.json", "thresholds.json", "calibration.json"):
        (folder / "in" / name).write_text(json.dumps(list(range(1000))))
    return seal(folder / "in", folder / "releases", kind="release", name="bench", facts={"started_by": "bench"})


def hash_all(bundle: Bundle) -> None:
    """What cannot be avoided: the SHA-256 of every file's bytes."""
    for name in bundle.files:
        with (bundle.path / name).open("rb") as file:
            hashlib.file_digest(file, "sha256")


def again(bundle: Bundle) -> None:
    """Verify with nothing remembered."""
    verify(bundle.path, bundle.digest)


def verified_warm_ms(bundle: Bundle) -> list[float]:
    """Verify again and again with inodes, sizes and times remembered."""
    verified: Verified = {}
    verify(bundle.path, bundle.digest, verified=verified)
    times_ms = []
    for _ in range(NUM_WARM):
        begun = time.perf_counter()
        verify(bundle.path, bundle.digest, verified=verified)
        times_ms.append((time.perf_counter() - begun) * 1000)
    return times_ms


def outcome(tests: str) -> tuple[int, int]:
    """How many of the tests passed and how many did not."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", tests], capture_output=True, text=True, check=False
    )
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    assert counts, f"pytest did not run {tests}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)


if __name__ == "__main__":
    main()
