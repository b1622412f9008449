"""A detector of behaviour: MLPs over numbers and categories, from different starts; their mean is the answer."""

from torch import Tensor

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.tabular import Head, Heads, Network


class BehaviourNetwork(Network):
    """Reads the `dense` columns alone."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        super().__init__()
        starts = range(spec.fit.num_starts)
        heads = [Head(spec.fit, encoder, text_size=0, num_labels=len(spec.labels)) for _ in starts]
        self.head = Heads([heads], encoder)

    def each(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [H, B, L] of every head."""
        return self.head.each(batch["dense_BD"])
