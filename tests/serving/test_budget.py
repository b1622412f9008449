import subprocess
import sys
from pathlib import Path

from serving.budget import Budget
from serving.decide import Left, Limit

DAY_US = 86_400_000_000
WORKER = """
import sys
from pathlib import Path
from serving.budget import Budget
from serving.decide import Limit

budget, limits = Budget(Path(sys.argv[1])), [Limit("content", "policy", 1000)]
print(sum(budget.take(limits, 5).actions > 0 for _ in range(400)))
"""


def limits(most: int) -> list[Limit]:
    return [Limit("content", "policy", most)]


def test_workers_together_take_exactly_what_the_policy_allows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = [int(worker.communicate()[0]) for worker in workers]

    assert sum(taken) == 1000


def test_what_was_spent_outlives_a_restart_and_ends_with_the_day(tmp_path: Path) -> None:
    before = Budget(tmp_path)
    before.take(limits(3), 5)
    before.close()

    budget = Budget(tmp_path)

    assert (budget.left(limits(3), 6).actions, budget.left(limits(3), DAY_US).actions) == (2, 3)
    budget.close()


def test_what_is_given_back_can_be_taken_again_and_is_never_more_than_was_taken(tmp_path: Path) -> None:
    budget = Budget(tmp_path)
    taken = [budget.take(limits(2), 5).actions for _ in range(3)]

    for _ in range(3):
        budget.give_back(limits(2), 5)

    assert taken == [2, 1, 0]
    assert [budget.take(limits(2), 5).actions for _ in range(3)] == taken
    budget.close()


def test_an_action_needs_room_in_each_limit_and_is_counted_in_all_or_none(tmp_path: Path) -> None:
    budget = Budget(tmp_path)
    policy, hotfix = Limit("content", "policy", 160), Limit("content-hotfix", "hotfix", 2)
    for _ in range(150):
        budget.take([policy], 5)

    taken = [budget.take([policy, hotfix], 5) for _ in range(3)]

    assert taken == [Left(2, hotfix), Left(1, hotfix), Left(0, hotfix)]
    assert budget.left([policy], 5) == Left(8, policy)
    budget.close()
