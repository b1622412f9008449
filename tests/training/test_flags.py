"""What is flagged over all labels follows the thresholds of segments, as serving does."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import text_spec
from training.benign import measure_suites
from training.detector import DetectorSpec, Gate
from training.flags import burden, confuse, cuts_of
from training.measure import describe
from training.metrics import Sample, draw_replicates, replicate
from training.policy import Promise
from training.predictions import Predictions
from training.thresholds import Threshold

PROMISE = Promise(limit=0.02, per="kind")
BY_KIND = {"prompt": Threshold(promise=PROMISE, threshold=0.3), "completion": Threshold(promise=PROMISE, threshold=0.9)}
THRESHOLDS = {"spam": Threshold(promise=PROMISE, threshold=0.9, segments=BY_KIND)}


def rows(kinds: list[str], verdicts: list[int]) -> Predictions:
    num = len(kinds)
    return Predictions(
        labels=["spam"],
        event_ids=np.array([f"e{n}" for n in range(num)], object),
        splits=np.array(["test"] * num, object),
        event_us=np.arange(num),
        logits=np.zeros((num, 1), np.float32),
        verdicts=np.array(verdicts, np.int8)[:, None],
        weights=np.ones(num),
        label_weights=np.ones((num, 1)),
        entities=np.arange(num),
        cards=np.array([""] * num, object),
        slices={"kind": np.array(kinds, object)},
    )


def test_a_row_is_flagged_from_the_threshold_of_its_segment_on() -> None:
    test = rows(["prompt", "prompt", "completion", "completion", "file"], [0, 1, 0, 1, 0])
    scores = np.array([[0.5], [0.2], [0.5], [0.95], [0.99]], np.float32)

    burdened, confused = (make(test, scores, thresholds=THRESHOLDS) for make in (burden, confuse))

    assert cuts_of(test, THRESHOLDS)[:, 0].tolist() == [0.3, 0.3, 0.9, 0.9, np.inf]
    assert burdened is not None
    assert confused is not None
    assert burdened.value == pytest.approx(1 / 3)
    assert confused.shares["spam"] == {"spam": 0.5, "nothing": 0.5}


def test_the_burden_of_many_rows_takes_no_memory_for_every_row_and_draw() -> None:
    num_rows = 200_000
    test, scores = rows(["prompt"] * num_rows, [0] * num_rows), np.full((num_rows, 1), 0.5, np.float32)
    test = replace(test, entities=np.arange(num_rows) % 1000)

    tracemalloc.start()
    found = burden(test, scores, thresholds=THRESHOLDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found is not None
    assert found.value == 1
    assert peak < 100e6  # 201 draws of 200,000 rows are 322 MB


def test_texts_of_no_segment_are_flagged_where_any_segment_would(tmp_path: Path) -> None:
    path = tmp_path / "benign.parquet"
    pq.write_table(pa.table({"suite": ["s"] * 4, "spam": pa.array([0.1, 0.4, 0.5, 0.95], pa.float32())}), path)
    spec = DetectorSpec.model_construct(labels=["spam"], gate=Gate(benign_suites={"s": 0.1}))

    [found] = measure_suites(path, spec, thresholds=THRESHOLDS, missing={})

    assert found.num_flagged == 3


@pytest.mark.parametrize("per", ["length", "script", "amount", "num_tokens"])
def test_a_promise_per_what_is_no_column_of_names_is_refused(per: str) -> None:
    stated = text_spec().model_dump() | {"slices": [per], "numbers": ["num_tokens"]}
    label = stated["labels"][0]

    with pytest.raises(ValueError, match=f"per is '{per}'; it must be a column of names"):
        DetectorSpec.model_validate(stated | {"promises": {label: {"limit": 0.05, "per": per}}})


def test_precision_that_was_seen_on_a_few_rows_is_not_certain() -> None:
    sample = Sample(np.linspace(0, 1, 100, dtype=np.float32), np.arange(100) >= 90, np.ones(100), np.arange(100))

    facts = describe(sample, replicate(sample, draw_replicates(100), threshold=0.95), threshold=0.95)

    rates = facts["at_threshold"]
    assert rates.precision.value == 1.0  # type: ignore[union-attr]
    assert rates.precision.low < 0.6  # type: ignore[union-attr]
