import json
import random
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from feature_repo.lake import Lake, day_of
from serving.bundle import Bundle
from serving.compaction import compact
from serving.live import Live
from serving.parts import Parts
from serving.past import Past
from serving.record import decode, time_of
from serving.segments import ask_to_seal, waiting
from serving.vault import Vault
from serving.verdict import replay
from tests.serving.service.conftest import Team
from tests.serving.service.test_service import SPAM, decide
from tests.training.conftest import NOUNS
from tests.training.conftest import SPAM as SPAM_WORDS

NUM_DECISIONS = 2_500


@pytest.fixture
def lake(team: Team) -> Lake:
    return Lake(team.home / "lake", memory_limit="1GB")


def bring_back(parts: Parts, lake: Lake) -> None:
    """What the service logged so far goes to the lake while it runs."""
    folder = lake.root.parent / "decisions"
    ask_to_seal(folder)
    parts.tick()
    compact(folder, lake, Vault(lake.root.parent / "keys"), days=waiting(folder), first_day=date(2018, 1, 1))


def texts(num: int) -> list[str]:
    rng = np.random.default_rng(3)
    return [" ".join([*rng.choice(NOUNS, 6), *rng.choice(SPAM_WORDS, rng.integers(3))]) for _ in range(num)]


@pytest.mark.slow
def test_a_thousand_decisions_from_before_three_release_changes_replay_to_the_same_bits(
    client: TestClient, parts: Parts, team: Team, first: Bundle, policy: Bundle, runs: dict[str, Path], lake: Lake
) -> None:
    ids: list[str] = []
    asked = [texts(NUM_DECISIONS)[at : at + 250] for at in range(0, NUM_DECISIONS, 250)]
    for number, batch in enumerate(asked):
        if number in (3, 5, 7):
            release = team.seal(runs["content"], note=f"number {number}")
            team.sign(release)
            team.deploy(release, policy)
        parts.tick()
        body = {"detector": "content", "events": [{"text": text} for text in batch]}
        ids += [made["decision_id"] for made in client.post("/v1/decisions", json=body).json()["decisions"]]
        ids += [decide(client, text).json()["decisions"][0]["decision_id"] for text in batch[:5]]
    bring_back(parts, lake)
    vault = Vault(team.home / "keys")
    past, reopened = Past(lake.root, vault), dict[str, Live]()

    chosen = [decode(past.find(id_, time_of(id_)) or b"") for id_ in random.Random(5).sample(ids, 1_000)]
    for one in chosen:
        if one.release not in reopened:
            reopened[one.release] = parts.follower.reopen(
                "content", release=one.release, policy_digest=one.policy.digest
            )
    answers = [replay(reopened[one.release], one, vault) for one in chosen]

    assert len(reopened) == 4
    assert all(answer["is_identical"] for answer in answers)
    assert {answer["action"] for answer in answers} == {"allow", "block"}


def test_a_decision_that_went_back_to_the_lake_is_shown_and_replayed_by_its_id(
    client: TestClient, parts: Parts, first: Bundle, lake: Lake
) -> None:
    parts.tick()
    made = decide(client).json()["decisions"][0]
    bring_back(parts, lake)

    found = client.get(f"/v1/decisions/{made['decision_id']}", params={"replay": "true"}).json()

    assert not list((lake.root.parent / "decisions").glob("*.sealed"))
    assert (found["scores"], found["action"], found["text"]) == (made["scores"], "block", "kept, encrypted")
    assert found["replay"]["is_identical"]
    assert SPAM not in json.dumps(found)


def test_a_text_that_is_not_the_one_judged_is_not_replayed(
    client: TestClient, parts: Parts, first: Bundle, lake: Lake
) -> None:
    parts.tick()
    decide(client, event_id="same")
    other = decide(client, "another text under the same id", event_id="same").json()["decisions"][0]
    bring_back(parts, lake)

    found = client.get(f"/v1/decisions/{other['decision_id']}", params={"replay": "true"}).json()

    assert found["replay"] == {"is_possible": False, "why": "the text was not kept"}


def test_an_id_of_nobody_is_not_found_whatever_time_it_claims(client: TestClient, lake: Lake) -> None:
    for claimed in ("0" * 12, "f" * 12, f"{day_of(0).toordinal():012x}"):
        assert client.get(f"/v1/decisions/dec_{claimed}{'0' * 20}").status_code == 404
