"""A detector of behaviour: an MLP over embedded numbers and categories."""

from torch import Tensor, nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.tabular import Head


class BehaviourNetwork(nn.Module):
    """Reads the `dense` columns alone."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        super().__init__()
        self.head = Head(spec.fit, encoder, text_size=0, num_labels=len(spec.labels))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [1, B, L]: of one member."""
        return self.head(batch["dense_BD"])[None]
