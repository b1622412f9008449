"""Stores a trained network as safetensors and JSON, and builds it again from them; no pickle, and no ONNX yet."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.registry import build_network
from training.networks.tabular import Network


def write_weights(bundle: Path, spec: DetectorSpec, *, encoder: Encoder, network: nn.Module) -> None:
    """Write spec.json, encoder.json and model.safetensors: all that the network is made of."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "spec.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    (bundle / "encoder.json").write_text(encoder.to_json(), encoding="utf-8")
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, bundle / "model.safetensors")


def read_spec(bundle: Path) -> DetectorSpec:
    """The spec that a bundle was made from."""
    return DetectorSpec.model_validate_json((bundle / "spec.json").read_text(encoding="utf-8"))


def load_network(bundle: Path) -> tuple[Network, Encoder]:
    """The network of a bundle, ready to answer, and its encoder."""
    spec = read_spec(bundle)
    encoder = Encoder.from_json((bundle / "encoder.json").read_text(encoding="utf-8"))
    network = build_network(spec, encoder)
    network.load_state_dict(load_file(bundle / "model.safetensors"))
    return network.eval(), encoder
