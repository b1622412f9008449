"""A cascade of a small real fit: who ends early, that nothing else changes, that what was judged is what is sealed."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import text_spec, texts, tiny_encoder, write_run
from training import cascade
from training.cascade import STORED, Cascade
from training.detector import Cascade as Wanted
from training.detector import DetectorSpec, Promise
from training.evaluate import evaluate_run
from training.fit import fit
from training.golden import check_golden
from training.scorer import Scorer

NUM_ROWS = 4000


def cascade_spec(pretrained: str, **changes: float) -> DetectorSpec:
    spec = text_spec(network="average", members=["ngram", "encoder"], pretrained=pretrained)
    update = {"cascade": Wanted(min_kept=0.9, **changes), "promises": {"fraud_spam": Promise(limit=0.05)}}
    return spec.model_copy(update=update)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    spec = cascade_spec(tiny_encoder(folder / "tiny"), max_asked=0.5)
    run_dir = write_run(folder / "run", spec, rows=texts(NUM_ROWS))
    fit(run_dir)
    (run_dir / "training_set.json").write_text(json.dumps({"num_rows": NUM_ROWS, "cutoff_us": 1}))
    evaluate_run(run_dir)
    return run_dir


def rows(run_dir: Path) -> pa.Table:
    return pq.read_table(run_dir / "training_set.parquet").slice(3500)


def test_what_the_first_member_is_sure_of_ends_early_and_the_rest_scores_as_without_a_cascade(run_dir: Path) -> None:
    answering, whole = cascade.load(run_dir / "bundle"), Scorer.load(run_dir / "bundle")
    assert isinstance(answering, Cascade)

    scores, ends_early = answering.judge(rows(run_dir))

    assert 0 < ends_early.sum() < len(ends_early)
    assert np.array_equal(scores[~ends_early], whole.score(rows(run_dir))[~ends_early])
    assert np.array_equal(scores[ends_early], answering.first.score(rows(run_dir))[ends_early])


def test_a_record_scores_the_same_alone_and_in_a_batch(run_dir: Path) -> None:
    answering, records = cascade.load(run_dir / "bundle"), rows(run_dir).slice(0, 60).to_pylist()

    together = answering.score(records)

    assert all(np.array_equal(answering.score([one])[0], row) for one, row in zip(records, together, strict=True))


def test_of_what_the_whole_network_flags_enough_is_still_asked_about(run_dir: Path) -> None:
    answering, whole = cascade.load(run_dir / "bundle"), Scorer.load(run_dir / "bundle")
    threshold = json.loads((run_dir / "bundle" / "thresholds.json").read_bytes())["fraud_spam"]["threshold"]
    _, ends_early = answering.judge(rows(run_dir))

    flagged = whole.score(rows(run_dir))[:, 0] >= threshold

    assert (~ends_early)[flagged].mean() >= 0.9


def test_what_is_sealed_is_what_was_judged(run_dir: Path) -> None:
    evaluation = json.loads((run_dir / "evaluation.json").read_bytes())

    assert evaluation["bundle_difference"] <= 1e-5
    assert check_golden(run_dir / "bundle", cascade.load(run_dir / "bundle")) == 0


def test_where_it_would_not_pay_there_is_no_cascade_and_the_report_says_why(run_dir: Path) -> None:
    pays = json.loads((run_dir / STORED).read_bytes())
    spec = DetectorSpec.model_validate_json((run_dir / "detector.json").read_bytes())
    frugal = spec.model_copy(update={"cascade": Wanted(min_kept=0.9, max_asked=1e-6)})
    (run_dir / "detector.json").write_text(frugal.model_dump_json(), encoding="utf-8")

    evaluate_run(run_dir)

    report = json.loads((run_dir / STORED).read_bytes())
    assert pays["pays"]
    assert not report["pays"]
    assert report["frontier"] == pays["frontier"]
    assert isinstance(cascade.load(run_dir / "bundle"), Scorer)


@pytest.mark.parametrize("members", [["encoder", "ngram"], ["ngram", "static"]])
def test_a_cascade_needs_a_cheap_member_before_an_encoder(members: list[str]) -> None:
    spec = text_spec(network="average", members=members)

    with pytest.raises(ValueError, match=r"fit.members is \['"):
        DetectorSpec.model_validate(spec.model_dump() | {"cascade": {}})
