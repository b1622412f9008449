import subprocess
import sys
from pathlib import Path

from serving.budget import Budget
from training.policy import Action, LabelPolicy, Policy

DAY_US = 86_400_000_000
WORKER = """
import sys
from pathlib import Path
from serving.budget import Budget
from training.policy import Policy

budget, policy = Budget(Path(sys.argv[1])), Policy.model_validate_json(sys.argv[2])
print(sum(budget.take(policy, 5) > 0 for _ in range(400)))
"""


def policy(limit: int) -> Policy:
    labels = {"spam": LabelPolicy(definition="bulk messages", action=Action.BLOCK)}
    return Policy(name="content", labels=labels, degraded=Action.HOLD, max_actions_per_day=limit)


def test_workers_together_take_exactly_what_the_policy_allows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path), policy(1000).model_dump_json()]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = [int(worker.communicate()[0]) for worker in workers]

    assert sum(taken) == 1000


def test_what_was_spent_outlives_a_restart_and_ends_with_the_day(tmp_path: Path) -> None:
    before = Budget(tmp_path)
    before.take(policy(3), 5)
    before.close()

    budget = Budget(tmp_path)

    assert (budget.left(policy(3), 6), budget.left(policy(3), DAY_US)) == (2, 3)
    budget.close()


def test_what_is_given_back_can_be_taken_again_and_is_never_more_than_was_taken(tmp_path: Path) -> None:
    budget = Budget(tmp_path)
    taken = [budget.take(policy(2), 5) for _ in range(3)]

    for _ in range(3):
        budget.give_back(policy(2), 5)

    assert taken == [2, 1, 0]
    assert [budget.take(policy(2), 5) for _ in range(3)] == taken
    budget.close()
