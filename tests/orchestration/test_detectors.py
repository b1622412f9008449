import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from feature_repo.windows import SERVICES, VIEWS
from orchestration.definitions import defs
from orchestration.detectors import Detector, read_detectors
from orchestration.settings import DEFS

DETECTORS = read_detectors(DEFS)
STAGES = ("training_set", "candidate", "release", "deployment")
ROOT = DEFS.parents[1]


@pytest.fixture(scope="module")
def graph() -> dg.Definitions:
    return defs()


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_has_every_stage_its_checks_and_its_sensors(name: str, graph: dg.Definitions) -> None:
    keys = {key.to_user_string() for key in graph.resolve_all_asset_keys()}
    checks = {f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.resolve_asset_graph().asset_check_keys}
    sensors = {sensor.name for sensor in graph.sensors or []}

    assert {f"{name}/{stage}" for stage in STAGES} <= keys
    assert {f"{name}/training_set:{check}" for check in ("is_valid", "has_no_leaks")} <= checks
    assert f"{name}/candidate:passes_gate" in checks
    assert {f"{name}_approval", f"{name}_new_labels"} <= sensors


@pytest.mark.parametrize("detector", DETECTORS.values(), ids=list(DETECTORS))
def test_a_detector_names_columns_that_exist_and_a_policy_that_speaks_of_its_labels(detector: Detector) -> None:
    from feature_repo.tables import EVENT_TABLES

    service = SERVICES[detector.spec.feature_service]
    columns = {f.name for view in service.views for f in VIEWS[view].features} | set(
        EVENT_TABLES[service.events].columns
    )

    assert service.events == detector.spec.events
    assert {*detector.spec.numbers, *detector.spec.categories} <= columns
    assert set(detector.spec.labels) <= set(detector.policy.labels)
    assert detector.policy.name == detector.spec.policy


def test_a_folder_adds_a_detector_and_nothing_else_is_touched(tmp_path: Path) -> None:
    for package in ("feature_repo", "training", "serving", "orchestration"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folder = tmp_path / "orchestration" / "defs" / "spam"
    folder.mkdir()
    text = (DEFS / "content" / "defs.yaml").read_text()
    (folder / "defs.yaml").write_text(
        text.replace("name: content", "name: spam").replace("policy: content", "policy: spam")
    )

    listing = "sorted(key.to_user_string() for key in defs().resolve_all_asset_keys())"
    program = f"from orchestration.definitions import defs; print({listing})"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )

    assert all(f"'spam/{stage}'" in loaded.stdout for stage in STAGES)
