"""How many actions a policy still allows today: a detector that goes wild is stopped by arithmetic."""

from collections import Counter
from datetime import UTC, date, datetime

from training.policy import Action, Policy


class Budget:
    """Counts the actions harder than `log` per policy and UTC day, in this process."""

    def __init__(self) -> None:
        self._day = date.min
        self._spent: Counter[str] = Counter()

    def left(self, policy: Policy, at_us: int) -> int:
        """What remains of the policy's actions on the day of this moment."""
        day = datetime.fromtimestamp(at_us // 1_000_000, UTC).date()
        if day != self._day:
            self._day, self._spent = day, Counter()
        return policy.max_actions_per_day - self._spent[policy.name]

    def spend(self, policy: Policy, action: Action) -> None:
        """Count an action that was decided."""
        if action.severity > Action.LOG.severity:
            self._spent[policy.name] += 1
