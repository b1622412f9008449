import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from starlette.testclient import TestClient

from serving.auth import create_key
from serving.bundle import Bundle
from serving.decision_log import read_segment
from serving.openapi import document
from serving.parts import Parts
from serving.segments import sealed_segments
from tests.serving.service.conftest import Team
from tests.serving.service.served import served
from tests.training.conftest import behaviour_spec

SPAM = "parcel jackpot garden unclaimed recipe giveaway wallet"
BENIGN = "poem river lesson budget garden recipe ticket"

BENTOML_CLIENT = """
import bentoml, json, sys
with bentoml.SyncHTTPClient(sys.argv[1], token=sys.argv[2]) as client:
    scores = client.score_table(detector="content", rows=[{"text": text} for text in json.load(sys.stdin)])
    try:
        client.score_table(detector="nobody", rows=[])
    except bentoml.exceptions.BentoMLException as error:
        scores.append(str(error))
print(json.dumps(scores))
"""


def decide(client: TestClient, text: str = SPAM, **event: object) -> httpx.Response:
    return client.post("/v1/decisions", json={"detector": "content", "event": {"text": text, **event}})


def test_a_signed_release_answers_with_its_digest_and_says_why(client: TestClient, parts: Parts, first: Bundle) -> None:
    parts.tick()

    flagged, benign = (decide(client, text).json()["decisions"][0] for text in (SPAM, BENIGN))

    assert flagged["release"] == benign["release"] == first.digest
    assert (flagged["action"], flagged["labels"]) == ("block", ["fraud_spam"])
    assert "reached the threshold" in flagged["reasons"][0]
    assert benign["action"] == "allow"


def test_what_nobody_signed_is_not_served(
    client: TestClient, parts: Parts, team: Team, runs: dict[str, Path], policy: Bundle
) -> None:
    unsigned = team.seal(runs["content"])
    body = {"detector": "content", "digest": unsigned.digest, "policy": policy.digest, "by": "mallory"}
    team.ledger.append("deployed", body)

    parts.tick()

    assert decide(client).status_code == 404
    assert "NotApproved" in json.dumps(client.get("/v1/releases").json())


def test_a_changed_byte_is_not_served(client: TestClient, parts: Parts, first: Bundle) -> None:
    weights = first.path / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")

    parts.tick()

    assert decide(client).status_code == 404
    assert "model.safetensors" in json.dumps(client.get("/v1/releases").json())


def test_a_decision_is_logged_and_replays_to_the_same_score(client: TestClient, parts: Parts, first: Bundle) -> None:
    parts.tick()
    decision_id = decide(client).json()["decisions"][0]["decision_id"]

    found = client.get(f"/v1/decisions/{decision_id}", params={"replay": "true"}).json()

    assert found["replay"]["is_identical"]
    assert found["text"] == "kept, encrypted"
    assert SPAM not in json.dumps(found)


def test_decisions_are_sealed_when_the_service_stops(
    client: TestClient, parts: Parts, team: Team, first: Bundle
) -> None:
    parts.tick()
    ids = {decide(client).json()["decisions"][0]["decision_id"] for _ in range(20)}

    parts.close()

    kept = [json.loads(r) for path in sealed_segments(team.home / "decisions") for r in read_segment(path)]
    assert {record["decision_id"] for record in kept} == ids


def test_no_request_fails_while_the_release_changes_and_each_answer_names_an_approved_one(
    client: TestClient, parts: Parts, team: Team, first: Bundle, policy: Bundle, runs: dict[str, Path]
) -> None:
    parts.tick()
    second = team.seal(runs["content"], note="second")
    team.sign(second)
    answers: list[httpx.Response] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            answers.append(decide(client))

    asking = threading.Thread(target=ask)
    asking.start()
    for release in (second, first, second):
        team.deploy(release, policy)
        parts.tick()
    num_before = len(answers)
    while len(answers) < num_before + 5:
        pass
    is_over.set()
    asking.join()

    assert {answer.status_code for answer in answers} == {200}
    named = [answer.json()["decisions"][0]["release"] for answer in answers]
    assert set(named) <= {first.digest, second.digest}
    assert named[-1] == second.digest


def test_a_revoked_release_gives_way_to_the_approved_one_before_it(
    client: TestClient, parts: Parts, team: Team, first: Bundle, policy: Bundle, runs: dict[str, Path]
) -> None:
    second = team.seal(runs["content"], note="second")
    team.sign(second)
    team.deploy(second, policy)
    parts.tick()
    before = decide(client).json()["decisions"][0]["release"]

    team.revoke(second)
    parts.tick()

    assert before == second.digest
    assert decide(client).json()["decisions"][0]["release"] == first.digest


def test_a_store_that_does_not_answer_is_said_and_the_policy_decides(
    client: TestClient, parts: Parts, team: Team, runs: dict[str, Path]
) -> None:
    release, policy = team.seal(runs["payment_fraud"]), team.seal_policy(behaviour_spec())
    team.sign(release, policy)
    team.deploy(release, policy)
    parts.tick()
    online = team.home / "feast" / "online.db"
    online.parent.mkdir()
    online.write_bytes(b"no database any more" * 100)

    answer = client.post("/v1/decisions", json={"detector": "payment_fraud", "event": {"account_id": "a", "amount": 9}})

    decision = answer.json()["decisions"][0]
    assert (decision["action"], decision["degraded"], decision["scores"]) == ("hold", True, None)
    assert "features are unavailable" in decision["reasons"][0]


def test_a_detector_without_anything_servable_does_not_take_the_others_off_the_load_balancer(
    client: TestClient, parts: Parts, team: Team, first: Bundle, runs: dict[str, Path]
) -> None:
    release, policy = team.seal(runs["payment_fraud"]), team.seal_policy(behaviour_spec())
    team.sign(release, policy)
    team.deploy(release, policy)
    team.revoke(release)

    parts.tick()

    answer = client.post("/v1/decisions", json={"detector": "payment_fraud", "event": {"account_id": "a", "amount": 9}})
    assert parts.follower.is_ready
    assert (decide(client).status_code, answer.status_code) == (200, 404)


def test_the_official_client_of_the_openai_api_works_unchanged(
    client: TestClient, parts: Parts, first: Bundle, key: str
) -> None:
    parts.tick()
    theirs = openai.OpenAI(api_key=key, base_url="http://testserver/v1", http_client=client)

    answer = theirs.moderations.create(input=[SPAM, BENIGN], model="content")

    assert [result.flagged for result in answer.results] == [True, False]


def test_a_key_counts_as_soon_as_it_is_made(client: TestClient, team: Team) -> None:
    fresh = create_key(team.home / "api_keys.json", "fresh", scopes=["read"])

    answer = client.get("/v1/releases", headers={"authorization": f"Bearer {fresh}"})

    assert answer.status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_a_key_may_be_written_in_any_case(client: TestClient, key: str, scheme: str) -> None:
    assert client.get("/v1/releases", headers={"authorization": f"{scheme} {key}"}).status_code == 200
    assert client.get("/v1/releases", headers={"authorization": f"{scheme} {key.upper()}"}).status_code == 401


def test_the_door_refuses_strangers_wrong_bodies_and_too_much(client: TestClient, parts: Parts, team: Team) -> None:
    reader = create_key(team.home / "api_keys.json", "reader", scopes=["read"])
    parts.tick()

    def post(content: bytes, **headers: str) -> int:
        return client.post(
            "/v1/decisions", content=content, headers={"content-type": "application/json", **headers}
        ).status_code

    assert post(b"{}", authorization="Bearer wrong") == 401
    assert post(b"{}", authorization=f"Bearer {reader}") == 403
    assert post(b"{}", **{"content-type": "application/x-pickle"}) == 415
    assert post(b"x" * (1 << 20) + b"x") == 413
    assert post(b'{"detector": "content"') == 400
    assert (
        client.post(
            "/v1/decisions", content=iter([b"x" * (1 << 19)] * 3), headers={"content-type": "application/json"}
        ).status_code
        == 413
    )


def test_an_error_names_the_field_and_repeats_nothing_that_was_sent(
    client: TestClient, parts: Parts, first: Bundle
) -> None:
    parts.tick()

    answer = decide(client, kind="a secret that somebody wrote")

    assert answer.status_code == 400
    assert "kind" in answer.json()["error"]["message"]
    assert "secret" not in answer.text


def test_the_documentation_page_draws_itself_without_a_key(parts: Parts) -> None:
    with TestClient(parts.door) as stranger:
        assert stranger.get("/docs").status_code == 200
        assert stranger.get("/docs.js").headers["content-type"].startswith("text/javascript")
        assert "/v1/decisions" in stranger.get("/openapi.json").json()["paths"]


def test_bentoml_serves_an_empty_home_alive_and_not_ready(tmp_path: Path) -> None:
    with served(tmp_path, wait_for="/healthz") as server, httpx.Client(base_url=server.url) as caller:
        answers = {path: caller.get(path).status_code for path in ("/readyz", "/v1/releases", "/docs")}

    assert answers == {"/readyz": 503, "/v1/releases": 401, "/docs": 200}


def test_a_killed_worker_is_missed_within_seconds(tmp_path: Path) -> None:
    with served(tmp_path, wait_for="/healthz") as server:
        waited_s = []
        for _ in range(3):
            [worker] = psutil.Process(server.pid).children()
            worker.kill()
            killed = time.monotonic()
            while worker in (left := psutil.Process(server.pid).children()) or not left:
                time.sleep(0.05)
            waited_s.append(time.monotonic() - killed)

    assert max(waited_s) < 5  # BentoML looks each ten seconds


def test_bentomls_client_scores_a_table_and_what_is_mounted_is_in_its_document_and_in_the_metrics(
    team: Team, first: Bundle, key: str
) -> None:
    bulk = create_key(team.home / "api_keys.json", "bulk", scopes=["bulk"])
    with served(team.home) as server:
        client = [sys.executable, "-c", BENTOML_CLIENT, server.url, bulk]  # which leaves a temporary folder behind
        done = subprocess.run(client, input=json.dumps([SPAM, BENIGN]), capture_output=True, text=True, check=True)
        httpx.post(f"{server.url}/v1/decisions", json={}, headers={"authorization": f"Bearer {key}"})
        described = httpx.get(f"{server.url}/docs.json").json()["paths"]
        metrics = httpx.get(f"{server.url}/metrics").text

    spam, benign, refusal = json.loads(done.stdout)
    assert spam["fraud_spam"] > 0.5 > benign["fraud_spam"]
    assert "no approved release" in refusal
    assert {"/v1/tables", "/v1/decisions", "/v1/moderations", "/v1/bulk", "/healthz"} <= set(described)
    assert '"pattern":"^[A-Za-z0-9_.:-]{1,64}$"' in json.dumps(document()["components"], separators=(",", ":"))
    assert "\\Z" not in json.dumps(document())
    assert 'mews_responses_total{route="/v1/tables",status="200"} 1.0' in metrics
    assert 'mews_responses_total{route="/v1/decisions",status="400"} 1.0' in metrics


def test_two_workers_start_together_answer_and_count_actions_as_one(
    team: Team, first: Bundle, key: str, runs: dict[str, Path]
) -> None:
    two = {"BENTOML_CONFIG_OPTIONS": "services.mews.workers=2"}
    asked = {"detector": "content", "event": {"text": SPAM}}
    with served(team.home, env=two) as server:
        workers: Counter[str] = Counter()
        for _ in range(40):  # each on a connection of its own, so that both workers get some
            answer = httpx.post(f"{server.url}/v1/decisions", json=asked, headers={"authorization": f"Bearer {key}"})
            workers[answer.json()["decisions"][0]["action"]] += 1

    segments = sealed_segments(team.home / "decisions")
    kept = [json.loads(record) for path in segments for record in read_segment(path)]
    assert len(segments) == 2
    assert workers == {"block": 40}
    assert sorted(record["actions_left"] for record in kept) == list(range(9_961, 10_001))
