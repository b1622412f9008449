"""The service over a real Redis: what it saw counts for the next request, and without Redis the policy decides."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from feature_repo.view import HOUR
from serving.parts import Parts
from tests.feature_repo.redis_server import BINARY, RedisServer, redis_server
from tests.serving.service.conftest import Team
from tests.training.conftest import behaviour_spec

pytestmark = [pytest.mark.service, pytest.mark.skipif(BINARY is None, reason="no redis-server on this machine")]
PAYMENT = {"account_id": "a", "card_id": "c", "merchant_id": "m", "amount": 9}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def parts(
    team: Team, key: str, server: RedisServer, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Parts]:
    monkeypatch.setattr("serving.known.READ_WITHIN_S", 2.0)  # a busy machine must not look like a slow Redis
    release, policy = team.seal(runs["payment_fraud"]), team.seal_policy(behaviour_spec())
    team.sign(release, policy)
    team.deploy(release, policy)
    made = Parts(team.home, stores={"redis": server.connection})
    made.tick()
    yield made
    made.close()


def features(client: TestClient, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What was known about each event when it was decided."""
    answer = client.post("/v1/decisions", json={"detector": "payment_fraud", "events": list(events)})
    ids = [decision["decision_id"] for decision in answer.json()["decisions"]]
    return [client.get(f"/v1/decisions/{decision_id}").json()["features"] for decision_id in ids]


def test_the_next_request_sees_what_the_service_saw_within_a_second(client: TestClient) -> None:
    (before,) = features(client, PAYMENT)
    time.sleep(1)

    (after,) = features(client, PAYMENT)

    assert (before["values"]["num_payments_1d"], after["values"]["num_payments_1d"]) == (0, 1)
    assert "num_payments_1d" in before["missing"]
    assert "num_payments_1d" not in after["missing"]


def test_an_event_that_is_sent_again_counts_once(client: TestClient) -> None:
    features(client, {**PAYMENT, "event_id": "p1"}, {**PAYMENT, "event_id": "p1"})
    time.sleep(1)
    features(client, {**PAYMENT, "event_id": "p1"})
    time.sleep(1)

    assert features(client, PAYMENT)[0]["values"]["num_payments_1d"] == 1


def test_the_events_of_one_request_see_each_other_as_they_happened(client: TestClient) -> None:
    now_us = time.time_ns() // 1000 - 10_000_000
    events = [{**PAYMENT, "event_us": now_us + at} for at in (2_000_000, 0, 1_000_000)]

    rows = features(client, *events)

    assert [row["values"]["num_payments_1d"] for row in rows] == [2, 0, 1]


def test_an_event_of_the_days_that_the_lake_may_not_hold_yet_reads_what_was_then_and_an_older_one_what_is_now(
    client: TestClient,
) -> None:
    now_us = time.time_ns() // 1000
    features(client, *({**PAYMENT, "event_us": now_us - hours * HOUR} for hours in (46, 30)))
    time.sleep(1)

    recent, old = features(client, {**PAYMENT, "event_us": now_us - 25 * HOUR}, {**PAYMENT, "event_us": 1})

    assert (recent["values"]["num_payments_1d"], old["values"]["num_payments_1d"]) == (2, 0)


def test_the_policy_decides_while_redis_is_stopped_and_features_come_back_by_themselves(
    client: TestClient, server: RedisServer
) -> None:
    body = {"detector": "payment_fraud", "event": PAYMENT}
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    stopped = client.post("/v1/decisions", json=body).json()["decisions"][0]
    waited = time.monotonic() - began
    server.signal(signal.SIGCONT)
    again = stopped
    while again["degraded"] and time.monotonic() < began + 30:
        time.sleep(0.1)
        again = client.post("/v1/decisions", json=body).json()["decisions"][0]

    assert (stopped["action"], stopped["degraded"], stopped["scores"]) == ("hold", True, None)
    assert "features are unavailable" in stopped["reasons"][0]
    assert waited < 5
    assert not again["degraded"]
