from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.live import Live
from serving.record import PolicyRef
from tests.serving.service.conftest import spam_spec
from training.detector import DetectorSpec
from training.policy import Action, LabelPolicy, Policy


class Overflowing:
    """A scorer whose numbers end for every other event."""

    spec: DetectorSpec = spam_spec()

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, None]:
        answers = np.full((len(rows), len(self.spec.labels)), 0.5, np.float32)
        answers[1::2] = np.nan
        return answers, None


def test_an_event_for_which_the_detector_answers_no_number_is_not_scored() -> None:
    labels = {label: LabelPolicy(definition="a", action=Action.BLOCK) for label in Overflowing.spec.labels}
    policy = Policy(name="spam", labels=labels, degraded=Action.HOLD)
    live = Live("release", policy, PolicyRef("spam", 1, "digest"), {}, Overflowing(), reader=None)

    assessed = live.assess([{"text": "a"}] * 4)

    assert [one.scores is None for one in assessed] == [False, True, False, True]
    assert [one.why_not for one in assessed] == ["", "the detector answered no number"] * 2
