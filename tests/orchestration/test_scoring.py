from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.lake import Lake
from orchestration.approvals import Approvals
from orchestration.scoring import _scored, _write, score_file, with_features
from orchestration.settings import Settings
from serving.cuts import Cut
from serving.release import seal_release
from tests.serving.trust.conftest import make_run
from tests.training.conftest import text_spec
from training.detector import DetectorSpec
from training.policy import Action, LabelPolicy, Policy, Promise

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


def test_the_segment_of_a_promise_is_computed_also_where_no_network_reads_it(tmp_path: Path) -> None:
    base = text_spec().model_dump()
    spec = DetectorSpec.model_validate(base | {"slices": ["plan"], "promises": {"fraud_spam": Promise(per="plan")}})
    event = pa.table({"event_id": ["e"], "event_us": [1], "account_id": ["a"], "text": ["garden"]})

    [row] = with_features(Lake(tmp_path), spec, event)

    assert row["text"] == "garden"
    assert "plan" in row


def test_a_file_without_rows_is_written_without_rows(tmp_path: Path) -> None:
    source, output = tmp_path / "events.parquet", tmp_path / "scored.parquet"
    pq.write_table(pa.table({"event_us": pa.array([], pa.int64())}), source)
    output.write_text("of the day before")

    def scored(batch: pa.RecordBatch) -> pa.Table:
        none = np.empty((0, 1), np.float32)
        return _scored(batch, [], none, cuts={"spam": Cut(0.9)}, policy=Policy(name="content", labels={"spam": SPAM}))

    num_rows = _write(pq.ParquetFile(source), output, scored=scored, report=lambda *_: None)

    assert num_rows == 0
    assert pq.read_table(output).column_names == ["event_us", "p_spam", "flagged", "action"]


def test_a_release_of_another_detector_scores_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    release = seal_release(make_run(tmp_path / "run"), settings.releases, lineage={"started_by": "tom"})

    for prefix, told in ((release.digest[:12], "must be a release of content"), ("", "must be at least 8")):
        with pytest.raises(ValueError, match=told):
            score_file(settings, "content", tmp_path / "in", output=tmp_path / "out", prefix=prefix)

    assert Approvals(settings).release_of("payment_fraud", release.digest[:12]) == release
