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

from securesystemslib.signer import CryptoSigner

from serving.approval import sign
from serving.bundle import Bundle, Verified, seal, verify
from serving.evidence import write_evidence
from serving.keys import create_key, load_key
from serving.ledger import Ledger
from serving.people import People, Person, begin
from serving.release import seal_release
from tests.bench.harness import IS_SMALL, cost, interleave, median_ratio, report
from tests.training.conftest import text_spec, texts, write_run
from training.evaluate import evaluate_run
from training.export import complete
from training.fit import fit

SIZE = (10 if IS_SMALL else 100) * 10**6
REPEATS = 5 if IS_SMALL else 15
NUM_WARM = 200
NUM_ENTRIES = 200 if IS_SMALL else 2000
PASSED = {"passed": True, "reason": "for the clock", "criteria": [{"name": "for the clock", "passed": True}]}
BYPASS = ("-m", "bypass", "tests/serving/trust")
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
        evidence_s = written_s(Path(folder))
    passed, failed = outcome(*BYPASS)
    held, lost = (0, 0) if IS_SMALL else outcome(KILLS)
    figures = {
        "verify_cold_vs_sha256": median_ratio(cold["verify"], cold["sha256"]),
        "verify_warm_p95_ms": statistics.quantiles(warm_ms, n=20)[-1],
        "bypasses_refused": passed,
        "bypasses_not_refused": failed,
        "ledger_lost": lost if held + lost else None,
        "evidence_s": evidence_s,
        "why": {"ledger_lost": "a hundred kills do not fit a smoke run"} if IS_SMALL else {},
    }
    report("release", figures, limits=LIMITS, raw={"cold_s": cold, "warm_ms": warm_ms})


def sealed(folder: Path) -> Bundle:
    """A release whose weights are most of it."""
    (folder / "in").mkdir()
    (folder / "in" / "model.safetensors").write_bytes(weights())
    for name in ("spec.json", "encoder.json", "thresholds.json", "calibration.json"):
        (folder / "in" / name).write_text(json.dumps(list(range(1000))))
    return seal(folder / "in", folder / "releases", kind="release", name="bench", facts={"started_by": "bench"})


def weights() -> bytes:
    """A file of weights, of random bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    return len(header).to_bytes(8, "little") + header + os.urandom(SIZE)


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


def written_s(root: Path) -> float:
    """Write and check the evidence of a release that was really trained and evaluated, as heavy as the others."""
    run_dir = write_run(root / "run", text_spec(max_epochs=1), rows=texts(2000))
    fit(run_dir)
    complete(run_dir / "bundle")
    (run_dir / "training_set.json").write_text(json.dumps({"num_rows": 2000}))
    evaluate_run(run_dir)
    (run_dir / "verdict.json").write_text(json.dumps(PASSED))
    (run_dir / "bundle" / "model.safetensors").write_bytes(weights())
    ledger, people, signers = office(root)
    release = seal_release(run_dir, root / "releases", lineage={"started_by": "bench"})
    for signer in signers:
        sign(ledger, people, release, signer=signer)
    return cost(lambda: write_evidence(ledger, people, release, None, target=root / "evidence")).wall_s


def office(root: Path) -> tuple[Ledger, People, list[CryptoSigner]]:
    """Two people and the ledger of some years."""
    roles = {"ada": "ml", "bob": "policy"}
    keys = {name: create_key(root / f"{name}.pem", None) for name in roles}
    people = People(people=[Person(name=n, roles=[r], public_key=keys[n]) for n, r in roles.items()])
    ledger = Ledger(root / "ledger.jsonl")
    begin(ledger, people)
    for i in range(NUM_ENTRIES):
        ledger.append("deployed", {"detector": "other", "digest": f"{i:064x}", "policy": "0" * 64, "by": "ada"})
    return ledger, people, [load_key(root / f"{name}.pem", None) for name in roles]


def outcome(*tests: str) -> tuple[int, int]:
    """How many of the tests passed and how many did not."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", *tests], capture_output=True, text=True, check=False
    )
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    assert counts, f"pytest did not run {tests}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)


if __name__ == "__main__":
    main()
