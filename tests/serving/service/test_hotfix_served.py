"""A hotfix reaches the answers of the service within a tick, is named in each, and replays."""

import json

from starlette.testclient import TestClient

from serving import deployment
from serving.approval import sign
from serving.bundle import Bundle, read
from serving.cuts import Condition, Cut, Move
from serving.decision_log import logged
from serving.hotfix import Hotfix, seal_hotfix
from serving.parts import Parts
from serving.release import read_policy
from tests.serving.service.conftest import Team
from tests.serving.service.test_service import BENIGN, SPAM


def decide(client: TestClient, kind: str, *, text: str = BENIGN, num_events: int = 1) -> list[dict[str, object]]:
    events = [{"text": text, "kind": kind} for _ in range(num_events)]
    found = client.post("/v1/decisions", json={"detector": "content", "events": events})
    assert found.status_code == 200, found.text
    return list(found.json()["decisions"])


def test_a_rule_changes_answers_names_itself_within_a_budget_of_its_own_and_replays(
    team: Team, first: Bundle, policy: Bundle, parts: Parts, client: TestClient
) -> None:
    parts.tick()
    [before] = decide(client, "social")
    decide(client, "prompt", num_events=100)
    [spam] = decide(client, "prompt", text=SPAM)
    change = Hotfix(
        detector="content",
        release=first.digest,
        policy=policy.digest,
        reason="a campaign in social posts",
        max_actions_per_day=2,
        moves=[Move(label="fraud_spam", threshold=0, where=[Condition(column="kind", equals="social")])],
    )
    sealed, found = seal_hotfix(
        change,
        logged(team.home / "decisions", since_us=0),
        team.shelves.hotfixes,
        cuts={label: Cut.of(one) for label, one in json.loads(read(first, "thresholds.json")).items()},
        policy=read_policy(policy),
        started_by="ada",
    )
    sign(team.ledger, team.people, sealed, signer=team.signers["ada"])
    deployment.deploy(team.ledger, team.people, first, policy, by="ada", hotfix=sealed)
    parts.tick()

    [social, again, third], [prompt] = decide(client, "social", num_events=3), decide(client, "prompt")

    assert found.num_harder == 1
    assert (before["action"], spam["action"], prompt["action"]) == ("allow", "block", "allow")
    assert [one["action"] for one in (social, again, third)] == ["block", "block", "log"]
    assert third["reasons"][-1] == "the hotfix's 2 actions of today are spent: block is only logged"  # type: ignore[index]
    assert social["policy"]["hotfix"] == sealed.digest  # type: ignore[index]
    for decided in (social, third):
        replayed = client.get(f"/v1/decisions/{decided['decision_id']}?replay=true").json()["replay"]
        assert replayed["is_identical"]
