"""Which searches go on with what was tried, and which begin anew."""

from pathlib import Path

import pytest

from orchestration.settings import Settings
from orchestration.stages import search, shelf
from tests.training.conftest import behaviour_spec

SPEC = behaviour_spec()


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [
        ({"description": "better said"}, True),
        ({"owners": ["team:other"]}, True),
        ({"gate": SPEC.gate.model_copy(update={"max_event_ms": 40.0})}, True),
        ({"search": SPEC.search.model_copy(update={"num_trials": 3})}, True),
        ({"fit": SPEC.fit.model_copy(update={"seed": 5})}, False),
        ({"numbers": SPEC.numbers[1:]}, False),
        ({"max_similarity": None}, False),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_a_search_goes_on_unless_what_is_trained_changed(
    tmp_path: Path, changed: dict[str, object], *, goes_on: bool
) -> None:
    settings = Settings(home=tmp_path)
    folder = shelf.new(settings.training_sets / SPEC.name, "first")
    (folder / "manifest.json").write_text('{"sha256": "abc"}')
    (folder / "data.parquet").write_text("rows")
    shelf.publish(folder)

    before = search.prepare(SPEC, settings)
    after = search.prepare(SPEC.model_copy(update=changed), settings)

    assert (after == before) is goes_on
