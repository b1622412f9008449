"""The launcher with real processes: killed, resumed, on one device and on two."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from tests.serving.service.served import free_port
from tests.training.conftest import behaviour_spec, payments, text_spec, texts, tiny_encoder, write_run
from tests.training.processes import ROOT, kill_after, last_step, ranks, relative_difference, weights
from training.detector import DetectorSpec
from training.launch import command, environment, train
from training.reports import new_lines

pytestmark = pytest.mark.slow


def test_a_run_killed_twice_ends_with_the_same_bits(tmp_path: Path) -> None:
    spec = behaviour_spec(max_epochs=30, patience=30, global_batch_size=64, hidden_size=256)
    whole = write_run(tmp_path / "whole", spec, rows=payments())
    killed = write_run(tmp_path / "killed", spec, rows=payments())
    train(whole, report=lambda _: None)

    kill_after(killed, 80)
    kill_after(killed, 260)
    train(killed, report=lambda _: None)

    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert (weights(whole) == weights(killed)).all()


@pytest.mark.parametrize(("spec_of", "rows_of"), [(behaviour_spec, payments), (text_spec, texts)])
def test_two_processes_learn_what_one_learns(
    spec_of: Callable[..., DetectorSpec], rows_of: Callable[[], pa.Table], tmp_path: Path
) -> None:
    one = write_run(tmp_path / "one", spec_of(dropout=0.0), rows=rows_of())
    two = write_run(tmp_path / "two", spec_of(dropout=0.0, devices=2), rows=rows_of())

    train(one, report=lambda _: None)
    train(two, report=lambda _: None)

    assert relative_difference(one, two) <= 1e-5


def tuned(folder: Path, **fit: object) -> DetectorSpec:
    """A detector whose pretrained encoder goes on learning, with dropout of its own, on two devices."""
    encoder = {"pretrained": tiny_encoder(folder / "tiny"), "trainable_layers": 2}
    return text_spec(network="average", members=["ngram", "encoder"], **encoder, devices=2, **fit)


def test_weights_in_parts_learn_what_whole_ones_learn(tmp_path: Path) -> None:
    spec = tuned(tmp_path)
    whole = write_run(tmp_path / "whole", spec, rows=texts(600))
    in_parts = spec.model_copy(update={"fit": spec.fit.model_copy(update={"strategy": "fsdp2"})})
    parted = write_run(tmp_path / "parted", in_parts, rows=texts(600))

    train(whole, report=lambda _: None)
    train(parted, report=lambda _: None)

    assert relative_difference(whole, parted) <= 1e-5


def test_weights_in_parts_outlive_a_killed_rank(tmp_path: Path) -> None:
    spec = tuned(tmp_path, strategy="fsdp2", global_batch_size=64, max_epochs=10)
    whole, killed = (write_run(tmp_path / name, spec, rows=texts()) for name in ("whole", "killed"))
    train(whole, report=lambda _: None)

    process = subprocess.Popen([*command(killed), "--checkpoint-every", "0.1"], cwd=ROOT, env=environment())
    while last_step(killed) < 60 or not (killed / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    ranks(killed)[0].kill()

    assert process.wait(timeout=120) == 0
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert (weights(whole) == weights(killed)).all()


def test_two_agents_that_meet_on_an_address_learn_what_one_process_learns(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", behaviour_spec(dropout=0.0), rows=payments())
    two = write_run(tmp_path / "two", behaviour_spec(dropout=0.0, num_nodes=2), rows=payments())
    meeting = ["--rdzv-backend=c10d", "--rdzv-id=7", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    nodes = ["--nnodes=2", "--nproc-per-node=1", *meeting, "--local-addr=127.0.0.1"]
    agent = [sys.executable, "-m", "torch.distributed.run", *nodes, "-m", "training", str(two)]

    train(one, report=lambda _: None)
    agents = [subprocess.Popen(agent, cwd=ROOT, env=environment()) for _ in range(2)]

    assert [one.wait(timeout=120) for one in agents] == [0, 0]
    assert relative_difference(one, two) <= 1e-5


def test_curves_are_reported_while_the_run_goes_on(behaviour_run: Path) -> None:
    reported: list[str] = []

    train(behaviour_run, report=reported.append)

    assert reported == (behaviour_run / "metrics.jsonl").read_text().splitlines()


def test_a_failed_fit_ends_the_launcher_with_its_status(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", behaviour_spec(), rows=payments().drop_columns("amount"))

    with pytest.raises(SystemExit, match="training of run ended with status 1"):
        train(run_dir, report=lambda _: None)


def test_sigterm_reaches_the_fit(behaviour_run: Path) -> None:
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()

    with pytest.raises(SystemExit, match="ended with status"):
        train(behaviour_run, report=lambda _: None)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_killed_launcher_leaves_no_fit_behind_and_the_next_one_goes_on(devices: int, tmp_path: Path) -> None:
    run_dir = write_run(
        tmp_path / "run", behaviour_spec(max_epochs=500, patience=500, devices=devices), rows=payments()
    )
    command = [sys.executable, "-m", "training.launch", str(run_dir)]
    launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while last_step(run_dir) < 20:
        assert launcher.poll() is None
        time.sleep(0.02)
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    fits = [one for one in psutil.Process(launcher.pid).children(recursive=True) if str(run_dir) in one.cmdline()]

    launcher.kill()
    launcher.wait()

    assert "is being trained by another process" in second.stderr
    assert len(fits) == (1 if devices == 1 else 3)  # torchrun and its ranks
    assert psutil.wait_procs(fits, timeout=60)[1] == []


def test_a_half_written_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = new_lines(path)
    assert next(lines) == []

    path.write_text("one\ntw")
    first = next(lines)
    path.write_text("one\ntwo\nthree\n")
    second = next(lines)
    path.write_text("one\n")

    assert (first, second, next(lines)) == (["one"], ["two", "three"], [])


def test_the_fit_path_needs_torch_lightning_numpy_pyarrow_and_safetensors_alone(behaviour_run: Path) -> None:
    program = """
import sys
absent = {"onnx", "onnxruntime", "onnxscript", "rtdl_num_embeddings", "confusable_homoglyphs", "duckdb", "orjson",
          "dagster_pipes", "dagster", "mlflow", "feast"}
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Bare())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in absent else found(name, package)
from training.__main__ import main
main()
"""

    subprocess.run([sys.executable, "-c", program, str(behaviour_run)], cwd=ROOT, check=True)

    bundle = {path.name for path in (behaviour_run / "bundle").iterdir()}
    assert bundle == {"spec.json", "encoder.json", "model.safetensors"}
