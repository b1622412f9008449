import pytest

from serving.openai_shape import moderation
from tests.serving.decisions import record, request
from training.policy import Action


@pytest.mark.parametrize(
    ("action", "labels", "is_flagged"),
    [
        (Action.ALLOW, [], False),
        (Action.LOG, [], False),
        (Action.LOG, ["spam"], True),
        (Action.WARN, [], True),
        (Action.HOLD, [], True),
        (Action.BLOCK, ["spam"], True),
    ],
)
def test_what_has_a_label_or_an_action_harder_than_log_is_flagged(
    action: Action, labels: list[str], is_flagged: bool
) -> None:
    decided = record(request(), action=action, labels=labels)

    [result] = moderation([decided], "content")["results"]

    assert result["flagged"] is is_flagged


def test_what_was_not_scored_and_is_held_is_flagged() -> None:
    decided = record(request(), action=Action.HOLD, scores=None, degraded=True)

    [result] = moderation([decided], "content")["results"]

    assert (result["flagged"], result["categories"]) == (True, {})
