"""An account's strikes are the same in every worker, and outlive each of them and the store that holds them."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from serving.decision_log import read_segment
from serving.parts import Parts
from serving.release import seal_policy
from tests.feature_repo.redis_server import BINARY, redis_server
from tests.serving.service.conftest import Team, spam_spec
from tests.serving.service.served import Served, served
from tests.serving.service.test_service import BENIGN, SPAM, decide
from training.policy import Action, LabelPolicy, Policy, Step

LADDER = [Step(strikes=2, action=Action.SUSPEND)]
TWO_WORKERS = {"BENTOML_CONFIG_OPTIONS": "services.mews.workers=2"}


@pytest.fixture
def home(team: Team, runs: dict[str, Path]) -> Path:
    """A deployed detector whose policy suspends an account at its third violation."""
    label = LabelPolicy(definition="spam", action=Action.BLOCK, ladder=LADDER)
    policy = Policy(name=spam_spec().policy, labels={"fraud_spam": label})
    release, sealed = team.seal(runs["content"]), seal_policy(policy, team.shelves.policies, started_by="tom")
    team.sign(release, sealed)
    team.deploy(release, sealed)
    return team.home


@dataclass
class Worker:
    """What one process of the service holds, and a client of it."""

    parts: Parts
    client: TestClient


Start = Callable[..., Worker]


@pytest.fixture
def start(home: Path, key: str) -> Iterator[Start]:
    """Start workers of one home."""
    with ExitStack() as stack:

        def begin(**stores: str) -> Worker:
            parts = Parts(home, stores=stores)
            stack.callback(parts.close)
            parts.tick()
            return Worker(parts, TestClient(parts.door, headers={"authorization": f"Bearer {key}"}))

        yield begin


def actions(worker: Worker, *texts: str, account: str = "ann") -> list[str]:
    answers = [decide(worker.client, text, account_id=account).json()["decisions"][0] for text in texts]
    return [answer["action"] for answer in answers]


def test_what_one_worker_did_leads_up_the_ladder_in_the_other(start: Start) -> None:
    one, other = start(), start()

    found = [actions(worker, SPAM)[0] for worker in (one, other, one, other)]

    assert found == ["block", "block", "suspend", "suspend"]
    assert actions(other, BENIGN) == ["allow"]
    assert actions(one, SPAM, account="bob") == ["block"]


def test_the_events_of_one_request_count_for_those_after_them(start: Start) -> None:
    events = [{"text": SPAM, "account_id": "ann"}] * 3

    answer = start().client.post("/v1/decisions", json={"detector": "content", "events": events}).json()

    assert [decision["action"] for decision in answer["decisions"]] == ["block", "block", "suspend"]


def test_strikes_outlive_a_restart_and_the_loss_of_their_store(start: Start, home: Path) -> None:
    before = start()
    actions(before, SPAM, SPAM)
    before.parts.close()

    restarted = actions(start(), SPAM)
    for file in (home / "feast").glob("online.db*"):
        file.unlink()

    assert restarted == actions(start(), SPAM) == ["suspend"]


@pytest.mark.service
@pytest.mark.skipif(BINARY is None, reason="no redis-server on this machine")
def test_while_the_store_is_away_nobody_climbs_and_what_it_missed_counts_when_it_is_back(
    start: Start, home: Path, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as redis:
        worker = start(redis=redis.connection)
        client = worker.client
        before = actions(worker, SPAM, SPAM, SPAM)
        redis.signal(signal.SIGKILL)
        away = decide(client, SPAM, account_id="ann").json()["decisions"][0]
        redis.start()
        worker.parts.tick()
        found = client.get(f"/v1/decisions/{away['decision_id']}", params={"replay": "true"}).json()
        (after,) = actions(worker, SPAM)
        strikes = [record["strikes"] for record in logged(home)]

    assert before == ["block", "block", "suspend"]
    assert (away["action"], away["degraded"]) == ("block", True)
    assert "strikes are not known" in away["reasons"][0]
    assert found["replay"]["is_identical"]
    assert (after, strikes) == ("suspend", [0, 1, 2, None, 4])


@pytest.mark.slow
def test_two_workers_count_as_one_also_after_one_of_them_was_killed(home: Path, key: str) -> None:
    with served(home, env=TWO_WORKERS) as server:
        ask(server, key, 10)
        workers = [p for p in psutil.Process(server.pid).children(recursive=True) if is_worker(p)]
        workers[0].kill()
        ask(server, key, 10)

    records = sorted(logged(home), key=lambda record: record["decision_id"])
    assert len(workers) == 2
    assert [record["strikes"] for record in records] == list(range(20))
    assert [record["action"] for record in records] == ["block"] * 2 + ["suspend"] * 18


def ask(server: Served, key: str, num: int) -> None:
    """One after another, each on a connection of its own; one that meets the killed worker is asked again."""
    asked = {"detector": "content", "event": {"text": SPAM, "account_id": "ann"}}
    for _ in range(num):
        while True:
            try:
                url = f"{server.url}/v1/decisions"
                assert httpx.post(url, json=asked, headers={"authorization": f"Bearer {key}"}).status_code == 200
                break
            except httpx.TransportError:
                time.sleep(0.1)


def is_worker(process: psutil.Process) -> bool:
    """Whether it writes a segment of its own."""
    return any(file.path.endswith(".open") for file in process.open_files())


def logged(home: Path) -> list[dict[str, object]]:
    segments = sorted((home / "decisions").glob("*-*.*"))
    return [json.loads(record) for path in segments for record in read_segment(path)]
