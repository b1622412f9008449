import numpy as np
import pyarrow as pa

from orchestration.scoring import _scored
from serving.cuts import Cut
from training.policy import Action, LabelPolicy, Policy

SPAM = LabelPolicy(definition="bulk messages", action=Action.HOLD, uncertain=Action.WARN)


def test_a_file_is_decided_as_the_service_would_by_segment_and_in_the_band_of_uncertain_scores() -> None:
    batch = pa.record_batch({"tier": ["free", "paid", "paid"]})
    cut = Cut(0.9, review_from=0.6, per="tier", segments={"free": 0.3, "paid": 0.9})

    found = _scored(
        batch,
        batch.to_pylist(),
        np.array([[0.5], [0.5], [0.7]], np.float32),
        cuts={"spam": cut},
        policy=Policy(name="content", labels={"spam": SPAM}),
    )

    assert found["action"].to_pylist() == ["hold", "allow", "warn"]
    assert found["flagged"].to_pylist() == [["spam"], [], []]
