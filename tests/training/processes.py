"""What happens to a run from outside: it is watched, killed, and compared with another by its weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]


def weights(run_dir: Path) -> np.ndarray:
    """All weights of a run in one vector."""
    tensors = load_file(run_dir / "bundle" / "model.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def relative_difference(expected: Path, found: Path) -> float:
    """The norm of the difference of two runs' weights over that of the first."""
    return float(np.linalg.norm(weights(expected) - weights(found)) / np.linalg.norm(weights(expected)))


def last_step(run_dir: Path) -> int:
    """The last step that a run has told of."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def kill_after(run_dir: Path, step: int) -> None:
    """Start the run in a process group and end all of it with SIGKILL once it has passed a step."""
    command = [sys.executable, "-m", "training", str(run_dir), "--checkpoint-every", "0.1"]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while last_step(run_dir) < step:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ranks(run_dir: Path) -> list[psutil.Process]:
    """The processes that train a run folder together, descendants of this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command, is_rank = process.cmdline(), "RANK" in process.environ()
        except psutil.Error:  # it has just ended
            continue
        if is_rank and str(run_dir) in command and "torch.distributed.run" not in command:
            found.append(process)
    return found
