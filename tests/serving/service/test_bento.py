from pathlib import Path

import bentoml
import pytest
from starlette.testclient import TestClient

from serving.bento import SEALED, adopt, build, pinned
from serving.bundle import Bundle, BundleAltered
from serving.parts import Parts
from tests.serving.service.conftest import Team
from tests.serving.service.test_service import decide

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of BentoML 1.4, while it builds


def test_a_bento_holds_its_release_and_serves_it_where_the_ledger_allows(
    client: TestClient, parts: Parts, team: Team, first: Bundle, policy: Bundle
) -> None:
    built = build(first, policy, root=Path.cwd())
    try:
        content = Path(built.path) / "src"
        first.path.rename(team.home / "taken away")

        adopt(content / SEALED, team.home)
        parts.tick()

        assert built.info.labels["release"] == first.digest
        assert decide(client).json()["decisions"][0]["release"] == first.digest
        assert (content / "serving" / "service.py").exists()
        assert not (content / "orchestration").exists()
    finally:
        bentoml.bentos.delete(built.tag)


def test_an_altered_release_gets_no_bento(team: Team, first: Bundle, policy: Bundle) -> None:
    weights = first.path / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")

    with pytest.raises(BundleAltered):
        build(first, policy, root=Path.cwd())


def test_a_bento_needs_what_the_lock_pins_and_no_torch_or_dagster() -> None:
    names = {line.partition("==")[0] for line in pinned(Path.cwd())}

    assert {"bentoml", "msgspec", "onnxruntime", "starlette"} <= names
    assert not names & {"torch", "dagster", "lightning", "great-expectations"}
