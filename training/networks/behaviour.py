"""A detector of behaviour: MLPs over numbers and categories, from different starts; their mean is the answer."""

from torch import Tensor, nn

from training.detector import DetectorSpec
from training.encoder import Encoder
from training.networks.tabular import Heads


class BehaviourNetwork(nn.Module):
    """Reads the `dense` columns alone."""

    def __init__(self, spec: DetectorSpec, encoder: Encoder) -> None:
        super().__init__()
        self.head = Heads(spec, encoder, sizes=[0] * spec.fit.num_starts)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [M, B, L] of M members."""
        return self.head.members(batch["dense_BD"])
