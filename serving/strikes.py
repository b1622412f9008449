"""How often an account was acted on lately: what leads it up a policy's ladder."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from training.policy import Action, Policy

_DAY_US = 86_400_000_000


class Strikes:
    """Counts the actions harder than `log` per policy and account, in this process; each expires after a while."""

    def __init__(self) -> None:
        self._at_us: defaultdict[tuple[str, str], list[int]] = defaultdict(list)

    def of(self, policy: Policy, event: Mapping[str, Any], at_us: int) -> int:
        """The strikes of an event's account that have not expired; an event of no account has none."""
        if not (account := event.get("account_id")):
            return 0
        found = self._at_us.get((policy.name, account), [])
        del found[: bisect_right(found, at_us - policy.strike_days * _DAY_US)]
        return len(found)

    def add(self, policy: Policy, event: Mapping[str, Any], at_us: int, *, action: Action) -> None:
        """Count an action that was decided; only where some ladder asks for it."""
        has_ladder = any(label.ladder for label in policy.labels.values())
        if has_ladder and action.severity > Action.LOG.severity and (account := event.get("account_id")):
            self._at_us[policy.name, account].append(at_us)
