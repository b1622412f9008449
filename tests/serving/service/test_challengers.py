import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from serving import challenges
from serving.bundle import Bundle
from serving.decision_log import read_segment
from serving.parts import Parts
from serving.segments import ask_to_seal, begun_us, sealed_segments
from tests.serving.service.conftest import Team
from tests.serving.service.test_service import SPAM, decide


@pytest.fixture
def second(team: Team, runs: dict[str, Path], first: Bundle) -> Bundle:
    release = team.seal(runs["content"], note="second")
    team.sign(release)
    return release


def logged(team: Team, role: str) -> list[dict[str, object]]:
    segments = (team.home / "decisions").glob("*-*.*")
    records = [json.loads(record) for path in segments for record in read_segment(path)]
    return [record for record in records if record["role"] == role]


def challenger() -> psutil.Process:
    """The process of the shadow."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process().children():
            if "serving.challenger" in child.cmdline():
                return child
    raise AssertionError("no challenger started")


def wait_for(team: Team, num: int, client: TestClient, parts: Parts) -> list[dict[str, object]]:
    deadline = time.monotonic() + 90
    while len(found := logged(team, "challenger")) < num and time.monotonic() < deadline:
        decide(client, account_id="a")
        parts.tick()
        time.sleep(0.1)
    return found


def num_dropped(parts: Parts, release: Bundle) -> float:
    labels = {"detector": "content", "release": release.digest}
    return parts.metrics.registry.get_sample_value("mews_shadow_dropped", labels) or 0.0


def test_a_shadow_decides_what_the_champion_answered_and_its_hanging_or_dying_is_not_noticed(
    client: TestClient, parts: Parts, team: Team, first: Bundle, second: Bundle, policy: Bundle
) -> None:
    challenges.challenge(team.ledger, team.people, second, policy, by="tom")
    parts.tick()

    seen = wait_for(team, 1, client, parts)
    os.kill(challenger().pid, signal.SIGSTOP)
    while_hanging = []
    while not num_dropped(parts, second) and len(while_hanging) < 1000:  # until the kernel holds no more
        while_hanging.append(decide(client, SPAM * 2000))
        parts.tick()
    os.kill(challenger().pid, signal.SIGKILL)
    while_dead = [decide(client) for _ in range(20)]

    assert seen[0]["release"] == second.digest
    champions = {record["request_id"]: record for record in logged(team, "champion")}
    assert champions[seen[0]["request_id"]]["scores"] == seen[0]["scores"]
    assert {answer.status_code for answer in while_hanging + while_dead} == {200}
    assert {answer.json()["decisions"][0]["release"] for answer in while_hanging + while_dead} == {first.digest}
    assert num_dropped(parts, second)


def test_a_shadow_that_sees_nothing_seals_its_log_when_asked_to(
    client: TestClient, parts: Parts, team: Team, second: Bundle, policy: Bundle
) -> None:
    challenges.challenge(team.ledger, team.people, second, policy, by="tom")
    parts.tick()
    wait_for(team, 1, client, parts)
    time.sleep(1)  # until it has read what was sent to it
    folder = team.home / "decisions"

    ask_to_seal(folder)
    asked_us, deadline = time.time_ns() // 1000, time.monotonic() + 30
    while [path for path in folder.glob("*.open") if begun_us(path) <= asked_us] and time.monotonic() < deadline:
        parts.tick()
        time.sleep(0.1)

    sealed = [json.loads(record)["role"] for path in sealed_segments(folder) for record in read_segment(path)]
    assert {"champion", "challenger"} == set(sealed)


def test_an_unsigned_release_challenges_nobody(
    client: TestClient, parts: Parts, team: Team, first: Bundle, policy: Bundle, runs: dict[str, Path]
) -> None:
    unsigned = team.seal(runs["content"], note="unsigned")
    body = {"detector": "content", "digest": unsigned.digest, "policy": policy.digest, "share": 0.5, "by": "mallory"}
    team.ledger.append("challenging", body)

    parts.tick()

    answers = {decide(client, account_id=f"a{n}").json()["decisions"][0]["release"] for n in range(40)}
    assert answers == {first.digest}
    assert "NotApproved" in json.dumps(parts.trials.status())


def test_a_canary_answers_its_accounts_alone_until_it_fails_and_the_champion_takes_over(
    client: TestClient, parts: Parts, team: Team, first: Bundle, second: Bundle, policy: Bundle
) -> None:
    challenges.challenge(team.ledger, team.people, second, policy, by="tom", share=0.5)
    parts.tick()

    def releases() -> list[str]:
        return [decide(client, account_id=f"a{n}").json()["decisions"][0]["release"] for n in range(40)]

    before, again = releases(), releases()
    trial = parts.trials.running["content"]
    for _ in range(20):
        trial.canary.failed(1)
    after = releases()
    parts.tick()

    assert before == again
    assert set(before) == {first.digest, second.digest}
    assert {record["release"] for record in logged(team, "canary")} == {second.digest}
    assert set(after) == {first.digest}
    assert [entry.body["by"] for entry in team.ledger.entries() if entry.kind == "challenge_ended"] == ["service"]
    assert parts.trials.running == {}
