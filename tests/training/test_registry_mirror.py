from pathlib import Path

import pytest

from training.registry_mirror import Story, mirror

mlflow = pytest.importorskip("mlflow")


def test_neither_a_deleted_version_nor_a_broken_memory_hides_what_was_moved(tmp_path: Path) -> None:
    uri, memory = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "memory.json"
    registry = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    registry.create_registered_model("spam")
    run = registry.create_run(registry.create_experiment("spam", artifact_location=str(tmp_path)))
    stories = [Story(version=str(i), tags={"status": "waiting"}, text="", card="# spam\n") for i in (1, 2, 3)]
    for _ in stories:
        registry.create_model_version("spam", str(tmp_path), run.info.run_id)

    def look() -> list[str]:
        return mirror("spam", stories, champion="1", tracking_uri=uri, memory=memory)

    assert look() == []
    registry.delete_model_version("spam", "1")
    registry.set_model_version_tag("spam", "3", "status", "approved")
    registry.set_registered_model_alias("spam", "champion", "3")
    assert [what.partition(" was ")[0] for what in look()] == ["spam version 3: tag status", "spam: alias champion"]
    memory.write_bytes(memory.read_bytes()[:20])
    assert look() == []
    registry.set_model_version_tag("spam", "2", "status", "approved")
    assert len(look()) == 1
    assert registry.get_model_version("spam", "2").tags["status"] == "waiting"
