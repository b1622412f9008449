import json
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from feature_repo.lake import day_of
from orchestration import runs
from orchestration.defs.decisions import decision_log
from orchestration.settings import Settings
from orchestration.stages.decisions import sealed_segments_wait
from serving.vault import Vault
from tests.orchestration.test_news import tick
from tests.serving.decisions import NOW_US, log, record, request
from training.evaluation import LabelEvaluation
from training.policy import Action
from training.score_bins import ScoreBins

TODAY = day_of(NOW_US)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path))
    monkeypatch.setenv("MEWS_FIRST_DAY", "2026-01-01")
    return Settings.from_environment()


def test_what_was_decided_comes_back_through_the_inbox_and_its_check(settings: Settings) -> None:
    vault = Vault(settings.home / "keys")
    log(settings.decisions, *(record(request(n), vault=vault, text="a poem") for n in range(20)))

    for key in ("lake/decisions", "lake/requests"):
        assert runs.materialize(settings, [key], first=TODAY).is_success

    with settings.lake.connect() as connection:
        assert connection.execute("SELECT count(*) FROM requests WHERE text = 'a poem'").fetchall() == [(20,)]
        assert connection.execute("SELECT count(*) FROM decisions").fetchall() == [(20,)]
    with runs.open_instance(settings) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["lake", "decisions"]))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["decisions"].value == 20


def test_an_altered_segment_fails_the_check_and_is_named(settings: Settings) -> None:
    segment = log(settings.decisions, record(request()))
    segment.write_bytes(segment.read_bytes()[:-1] + b" ")

    result = runs.materialize(settings, ["lake/decisions"], first=TODAY)

    assert segment.name in result.reason


def evaluated(settings: Settings, release: str) -> None:
    """A release whose label `spam` was evaluated on mostly low scores."""
    scores = np.random.default_rng(1).beta(1, 6, 2_000)
    label = LabelEvaluation(num_rows=2_000, num_positives=100, scores=ScoreBins.of(scores, np.ones(2_000)))
    folder = settings.releases / "content" / release
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"labels": {"spam": label.model_dump()}}))


def test_a_detectors_day_is_counted_and_scores_that_moved_away_fail_the_check(settings: Settings) -> None:
    rng = np.random.default_rng(2)
    for release, scores in (("a" * 64, rng.beta(1, 6, 300)), ("b" * 64, rng.beta(4, 4, 300))):
        evaluated(settings, release)
        log(settings.decisions, *(record(request(), scores={"spam": float(s)}, release=release) for s in scores))
    log(settings.decisions, *(record(request(), scores=None, degraded=True, action=Action.HOLD) for _ in range(200)))

    runs.materialize(settings, ["lake/decisions"], first=TODAY)
    result = runs.materialize(settings, ["content/decisions"], first=TODAY)

    assert "release bbbbbbbbbbbb" in result.reason
    assert "aaaaaaaaaaaa" not in result.reason
    with runs.open_instance(settings) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["content", "decisions"]))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = {name: one.value for name, one in event.asset_materialization.metadata.items()}
    assert (metadata["decisions"], metadata["degraded_share"]) == (800, 0.25)
    assert (metadata["action_allow"], metadata["action_hold"]) == (600, 200)
    assert "**drift**" in str(metadata["report"])


def test_a_sealed_segment_starts_the_compaction_of_its_day_and_the_next_one_starts_it_again(settings: Settings) -> None:
    sensor = sealed_segments_wait("compact")
    log(settings.decisions, record(request(1)))

    [first] = tick(sensor, settings, definitions=decision_log()).run_requests
    [again] = tick(sensor, settings, definitions=decision_log()).run_requests
    log(settings.decisions, record(request(2)))
    [next_one] = tick(sensor, settings, definitions=decision_log()).run_requests

    assert first.partition_key == TODAY.isoformat()
    assert first.run_key == again.run_key != next_one.run_key
