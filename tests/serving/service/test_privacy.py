from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.bundle import Bundle
from serving.decision_log import read_segment
from serving.parts import Parts
from serving.privacy import pseudonym
from serving.record import Record, decode
from serving.release import seal_policy
from serving.segments import sealed_segments
from serving.vault import Vault
from tests.serving.service.conftest import Team, spam_spec
from tests.serving.service.test_service import SPAM, decide
from training.policy import Action, LabelPolicy, Policy, Privacy


@pytest.fixture
def strict(team: Team, runs: dict[str, Path]) -> Bundle:
    """A deployed release whose policy keeps no text and knows accounts by a hash."""
    spec = spam_spec()
    labels = {label: LabelPolicy(definition="-", action=Action.BLOCK) for label in spec.labels}
    written = Policy(name=spec.policy, labels=labels, privacy=Privacy(keeps_text=False, hashed=["account_id", "ip"]))
    policy = seal_policy(written, team.shelves.policies, started_by="tom")
    release = team.seal(runs["content"], note="strict")
    team.sign(release, policy)
    team.deploy(release, policy)
    return release


def logged(parts: Parts, team: Team) -> Record:
    parts.close()
    [segment] = sealed_segments(team.home / "decisions")
    [record] = read_segment(segment)
    assert SPAM.encode() not in record
    return decode(record)


def test_a_policy_that_keeps_no_text_and_hashes_ids_leaves_neither_in_the_log(
    client: TestClient, parts: Parts, team: Team, strict: Bundle
) -> None:
    parts.tick()

    answered = decide(client, account_id="ann", ip=None).json()["decisions"][0]

    vault = Vault(team.home / "keys")
    record = logged(parts, team)
    assert answered["action"] == "block"
    assert (record.text, record.text_digest) == (None, vault.digest(SPAM))
    assert (record.event["account_id"], record.event["ip"]) == (pseudonym("ann", vault), None)


def test_a_decision_whose_text_was_not_kept_says_so_instead_of_being_replayed(
    client: TestClient, parts: Parts, strict: Bundle
) -> None:
    parts.tick()
    made = decide(client).json()["decisions"][0]

    found = client.get(f"/v1/decisions/{made['decision_id']}", params={"replay": "true"}).json()

    assert found["text"] == "not kept"
    assert found["replay"] == {"is_possible": False, "why": "the text was not kept"}


def test_the_same_id_has_the_same_pseudonym_with_one_key_and_another_with_another(tmp_path: Path) -> None:
    one, again, other = Vault(tmp_path / "a"), Vault(tmp_path / "a"), Vault(tmp_path / "b")

    assert pseudonym("ann", one) == pseudonym("ann", again) != pseudonym("ann", other)
    assert pseudonym("ann", one) != pseudonym("bob", one)
