"""The networks a detector can name. To add one: a file here, a line below, a row in test_networks.py."""

from torch import nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.behaviour import BehaviourNetwork
from training.networks.text import TextNetwork

NETWORKS: dict[str, type[nn.Module]] = {
    "ngram": TextNetwork,
    "static": TextNetwork,
    "encoder": TextNetwork,
    "average": TextNetwork,
    "behaviour": BehaviourNetwork,
}


def build_network(spec: DetectorSpec, encoder: Encoder) -> nn.Module:
    """The network of a detector with fresh weights: a batch in, logits [M, P, L] of M members and P passages out.

    Its `head` is what follows the pooled text.
    """
    return NETWORKS[spec.fit.network](spec, encoder)
