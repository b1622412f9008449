"""The networks a detector can name. To add one: a file here, a line below, a row in test_networks.py."""

from torch import nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.behaviour import BehaviourNetwork
from training.networks.ngram import NgramNetwork

NETWORKS: dict[str, type[nn.Module]] = {
    "ngram": NgramNetwork,
    "behaviour": BehaviourNetwork,
}


def build_network(spec: DetectorSpec, encoder: Encoder) -> nn.Module:
    """The network of a detector with fresh weights; it has a `bag` (or None) and a `head`."""
    return NETWORKS[spec.fit.network](spec, encoder)
