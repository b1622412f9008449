"""Writes what serving needs of a trained network: weights, encoder and an ONNX graph. No pickle."""

import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.golden import examples, write_golden
from training.networks.registry import build_network
from training.networks.tabular import Head
from training.scorer import Scorer

OPSET = 18
MAX_DIFFERENCE = 1e-5  # between the logits of torch and of the bundle


def write_weights(bundle: Path, spec: DetectorSpec, *, encoder: Encoder, network: nn.Module) -> None:
    """The part of a bundle that needs no ONNX: spec.json, encoder.json, model.safetensors."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "spec.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    (bundle / "encoder.json").write_text(encoder.to_json(), encoding="utf-8")
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, bundle / "model.safetensors")


def complete(bundle: Path) -> None:
    """Add dense.onnx and golden.json to a bundle with weights; raises ValueError where it differs from torch."""
    network, encoder = load_network(bundle)
    write_onnx(bundle / "dense.onnx", network)
    check_parity(bundle, network, encoder=encoder)
    write_golden(bundle)


def load_network(bundle: Path) -> tuple[nn.Module, Encoder]:
    """The network and the encoder of a bundle, in torch."""
    spec = DetectorSpec.model_validate_json((bundle / "spec.json").read_text(encoding="utf-8"))
    encoder = Encoder.from_json((bundle / "encoder.json").read_text(encoding="utf-8"))
    network = build_network(spec, encoder)
    network.load_state_dict(load_file(bundle / "model.safetensors"))
    return network.eval(), encoder


def write_onnx(path: Path, network: nn.Module) -> None:
    """The head as a graph from `input` float32 [B, D] to `logits` [B, L].

    By tracing: the head has no control flow, tracing needs neither onnx nor onnxscript, and it took 0.07 s where the
    newer exporter took 6 s for the same answers to the last bit.
    """
    head = network.get_submodule("head")
    assert isinstance(head, Head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            head,
            (torch.zeros(2, head.width),),
            path,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "rows"}, "logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


def check_parity(bundle: Path, network: nn.Module, *, encoder: Encoder) -> None:
    """Refuse a bundle whose logits are not those of the network it was made from."""
    rows = examples(encoder)
    inputs = encoder.encode(rows)
    with torch.inference_mode():
        tensors = (inputs.dense, inputs.ids, inputs.bounds[:-1].astype(np.int32))
        expected = network(*map(torch.from_numpy, tensors)).numpy()
    difference = float(np.abs(Scorer.load(bundle).logits(rows) - expected).max())
    if difference > MAX_DIFFERENCE:
        raise ValueError(f"{bundle}: logits differ from torch's by {difference:.1e}; the limit is {MAX_DIFFERENCE:.0e}")
