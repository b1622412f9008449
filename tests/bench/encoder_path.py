"""What an encoder in the path costs, and what a cascade saves of it: real encoder, real texts, released and served.

Both releases are loaded in turn with the network in process, once per round; then the cascade at half of its
saturation, and ONNX Runtime beside torch.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from tests.bench.encoder_release import STREAM, Judged, judge, releases, stream
from tests.bench.harness import IS_SMALL, median_ratio
from tests.bench.homes import api_key, deployed
from tests.bench.load import request
from tests.bench.servers import Measured, Server, measure
from tests.serving.service.served import served
from training import cascade
from training.data import tensors
from training.detector import DetectorSpec
from training.export import complete
from training.metrics import Floats
from training.networks.registry import build_network
from training.networks.text import worst
from training.scorer import Scorer
from training.weights import write_weights

LIMITS = {
    "encoder_vs_raw_throughput": ">= 0.9",
    "ort_vs_torch_speedup": ">= 2.5",
    "ort_vs_torch_difference": "<= 1e-5",
    "cascade_speedup": ">= 3",
    "cascade_recall_kept": ">= 0.97",
    "cascade_p99_ms": "goal 60",
}
CONNECTIONS = 32
ROUNDS = 2 if IS_SMALL else 5
NUM_TEXTS = 20 if IS_SMALL else 200  # scored one by one by torch and by ONNX Runtime


def encoder_figures(folder: Path) -> tuple[dict[str, object], object]:
    """The keys of bench-serving about encoder and cascade, and the raw numbers; prints what the cascade could be."""
    behind, alone = releases()
    texts = stream()
    with ExitStack() as stack:
        servers = {
            "encoder": stack.enter_context(_serving(folder / "encoder", alone, texts)),
            "cascade": stack.enter_context(_serving(folder / "cascade", behind, texts)),
        }
        costs, raw = in_turn(servers, Scorer.load(alone / "bundle"), texts)
        rate = statistics.median(m.per_second for m in costs["cascade"]) / 2
        half = [measure(servers["cascade"], "decisions", connections=64, most=STREAM, rate=rate) for _ in range(ROUNDS)]
    per_second = {name: [m.per_second for m in found] for name, found in costs.items()} | {"raw": raw}
    judged = judge(behind)
    frontier = judged.frontier()
    print("cascade, share asked of the stream and share kept of the detections:", json.dumps(frontier))
    found = {
        "encoder_vs_raw_throughput": median_ratio(per_second["scores"], per_second["raw"]),
        "encoder_decisions_vs_raw_throughput": median_ratio(per_second["encoder"], per_second["raw"]),
        **beside_torch(folder / "tuned", alone / "bundle", texts[:NUM_TEXTS]),
        **of_cascade(behind, judged, median_ratio(per_second["cascade"], per_second["encoder"]), half),
        **{f"{name}_per_second": statistics.median(found) for name, found in per_second.items()},
    }
    return found, {"costs": costs, "raw": raw, "half": half, "frontier": frontier}


def of_cascade(behind: Path, judged: Judged, speedup: float, half: list[Measured]) -> dict[str, object]:
    """What the sealed point of the cascade brings; nothing where no point was worth sealing, with the reason."""
    chosen = json.loads((behind / cascade.STORED).read_bytes())
    if not chosen["pays"]:
        missing = ("cascade_speedup", "cascade_recall_kept", "cascade_p99_ms")
        why = f"no point pays: {chosen['reason'] or chosen['asked']}"
        return {**dict.fromkeys(missing), "why": dict.fromkeys(missing, why)}
    return {
        "cascade_speedup": speedup,
        "cascade_recall_kept": judged.kept(judged.ended_early),
        "cascade_p99_ms": statistics.median(m.p99_ms for m in half),
        "cascade_asked": judged.asked(judged.ended_early),
        "cascade_found": float(judged.is_flagged[judged.is_violation].mean()),
        "cascade_benign_fpr": float(judged.is_flagged[~judged.is_violation].mean()),
    }


@contextmanager
def _serving(home: Path, run_dir: Path, texts: list[str]) -> Iterator[Server]:
    """A release in our service, asked about one text at a time: for decisions, and for scores alone."""
    deployed(home, run_dir, DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes()))
    key = {"authorization": f"Bearer {api_key(home)}"}
    bodies = [json.dumps({"detector": "content", "event": {"text": text}}).encode() for text in texts]
    with served(home, log=home / "service.log") as server:
        paths = {"decisions": "/v1/decisions", "scores": "/v1/scores"}
        asked = {kind: [request(path, body, **key) for body in bodies] for kind, path in paths.items()}
        yield Server(server.port, server.pid, asked)


def in_turn(
    servers: dict[str, Server], scorer: Scorer, texts: list[str]
) -> tuple[dict[str, list[Measured]], list[float]]:
    """Decisions of both and scores of the encoder at 32 connections, and the network in process, once per round."""
    asked = {"encoder": ("encoder", "decisions"), "cascade": ("cascade", "decisions"), "scores": ("encoder", "scores")}
    costs: dict[str, list[Measured]] = {name: [] for name in asked}
    raw = []
    groups = [[{"text": text} for text in texts[at : at + CONNECTIONS]] for at in range(0, len(texts), CONNECTIONS)]
    for is_counted in [False] + [True] * ROUNDS:
        begun = time.perf_counter()
        for group in groups:
            scorer.score(group)
        per_second = sum(map(len, groups)) / (time.perf_counter() - begun)
        found = {
            name: measure(servers[server], kind, connections=CONNECTIONS, most=STREAM)
            for name, (server, kind) in asked.items()
        }
        assert not any(one.num_failed for one in found.values())
        if is_counted:
            raw.append(per_second)
            for name, one in found.items():
                costs[name].append(one)
    return costs, raw


def beside_torch(folder: Path, served_bundle: Path, texts: list[str]) -> dict[str, float]:
    """One text at a time, one thread: a bundle with the encoder in float32 beside the torch network it was made from.

    A tuned encoder is released in float32, so that its scores are torch's; a frozen one in int8, on whose vectors its
    head was trained. The float32 bundle is compared with torch; the int8 one, which torch cannot run, is shown beside.
    """
    spec = Scorer.load(served_bundle).spec
    spec = spec.model_copy(update={"fit": spec.fit.model_copy(update={"trainable_layers": 1})})
    encoder = Scorer.load(served_bundle).encoder
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = build_network(spec, encoder).eval()
    write_weights(folder, spec, encoder=encoder, network=network)
    complete(folder)  # which refuses what differs from torch
    exact, quantised = Scorer.load(folder), Scorer.load(served_bundle)
    rows = [[{"text": text}] for text in texts]

    def by_torch(row: list[dict[str, str]]) -> Floats:
        with torch.inference_mode():
            batch = tensors(encoder.encode(row))
            return worst(network(batch), batch["owners_P"], num_rows=1).sigmoid().numpy()

    calls = {"torch": by_torch, "exact": exact.score, "int8": quantised.score}
    times = _interleaved(calls, rows)
    difference = max(float(np.abs(exact.score(row) - by_torch(row)).max()) for row in rows)
    return {
        "ort_vs_torch_speedup": median_ratio(times["torch"], times["exact"]),
        "ort_vs_torch_difference": difference,
        "int8_vs_torch_speedup": median_ratio(times["torch"], times["int8"]),
    }


def _interleaved(
    calls: dict[str, Callable[[list[dict[str, str]]], Floats]], rows: Sequence[list[dict[str, str]]]
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun = time.process_time()
            for row in rows:
                call(row)
            times[name].append(time.process_time() - begun)
    return times
