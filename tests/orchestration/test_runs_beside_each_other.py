"""What a run leaves for the next stage, and what it takes where another run of the detector ended meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from feature_repo.compute import compute_days
from feature_repo.lake import Lake
from feature_repo.windows import SERVICES
from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.stages.candidate import candidate_passes_gate
from orchestration.stages.training_set import training_set
from orchestration.validation import validate_batch
from tests.orchestration.conftest import FIRST, labels
from tests.orchestration.test_news import SPEC


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, first_day=FIRST, memory_limit="1GB")


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")  # inside Feast's duckdb store
def test_a_training_set_that_a_check_refuses_does_not_become_the_newest(
    settings: Settings, lake: Lake, arrive: Callable[..., None]
) -> None:
    arrive(FIRST)
    lake.write("inbox", "labels", labels(FIRST), day=FIRST)
    assert validate_batch(lake, "payments", FIRST).passed
    assert validate_batch(lake, "labels", FIRST, label_names={"fraud"}).passed
    compute_days(lake, FIRST, FIRST, views=SERVICES[SPEC.feature_service].views)
    good = shelf.new(settings.training_sets / SPEC.name, "good")
    shelf.publish(good)

    done = dg.materialize([training_set(SPEC)], resources={"settings": settings}, raise_on_error=False)

    refused = {one.check_name: one.description for one in done.get_asset_check_evaluations() if not one.passed}
    assert refused["is_valid"] == "no label has 5 positives in train"
    assert (settings.training_sets / SPEC.name / done.run_id / "data.parquet").exists()
    assert shelf.latest(settings.training_sets / SPEC.name) == good


def test_the_verdict_that_a_run_shows_is_that_of_its_own_candidate(settings: Settings) -> None:
    @dg.asset(key=[SPEC.name, "candidate"])
    def candidate(context: dg.AssetExecutionContext) -> None:
        for run, passed in ((context.run.run_id, False), ("other", True)):
            folder = shelf.new(settings.runs / SPEC.name, run)
            (folder / "verdict.json").write_text(json.dumps({"passed": passed, "reason": f"verdict of {run}"}))
            (folder / "card.md").write_text("# card")
            shelf.publish(folder)

    done = dg.materialize(
        [candidate, candidate_passes_gate(SPEC)], resources={"settings": settings}, raise_on_error=False
    )

    [shown] = done.get_asset_check_evaluations()
    assert (shown.passed, shown.description) == (False, f"verdict of {done.run_id}")
