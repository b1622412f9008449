"""The same service with nothing sealed, encoded or written down: the difference is what the decision log costs."""

from collections.abc import Sequence

import serving.moderator
from serving.decision_log import DecisionLog
from serving.service import Mews
from serving.vault import Vault

__all__ = ["Mews"]


def forget(_log: DecisionLog, _records: Sequence[bytes]) -> None:
    """Acknowledge what was not written."""


DecisionLog.write = forget  # type: ignore[method-assign]
Vault.seal = Vault.digest = lambda _vault, _text: ""  # type: ignore[method-assign]
serving.moderator.encode = lambda _record: b""  # type: ignore[assignment]
