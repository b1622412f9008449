"""The networks a detector can name. To add one: a file here, a line below, a row in test_networks.py."""

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.behaviour import BehaviourNetwork
from training.networks.tabular import Network
from training.networks.text import TextNetwork

NETWORKS: dict[str, type[Network]] = {
    "ngram": TextNetwork,
    "static": TextNetwork,
    "encoder": TextNetwork,
    "average": TextNetwork,
    "behaviour": BehaviourNetwork,
}


def build_network(spec: DetectorSpec, encoder: Encoder) -> Network:
    """The network of a detector with fresh weights: a batch in, logits [P, L] of its P passages out."""
    return NETWORKS[spec.fit.network](spec, encoder)
