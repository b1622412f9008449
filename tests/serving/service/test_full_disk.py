import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.bundle import Bundle
from serving.decision_log import read_segment
from serving.parts import Parts
from serving.segments import frames, sealed_segments
from tests.serving.service.conftest import Team
from tests.serving.service.test_service import SPAM, decide

SIZE = 256 << 10


@pytest.fixture(params=["decisions"])
def small_disk(request: pytest.FixtureRequest, team: Team) -> Iterator[Path]:
    """A folder of the home, by default the log's, on a file system of its own that holds a quarter of a megabyte."""
    folder = team.home / request.param
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_answered_with_503_and_room_is_enough_to_go_on(
    small_disk: Path, team: Team, key: str, first: Bundle
) -> None:
    parts = Parts(team.home)
    with TestClient(parts.door, headers={"authorization": f"Bearer {key}"}) as client:
        parts.tick()
        acknowledged = [decide(client).json()["decisions"][0]["decision_id"] for _ in range(3)]
        ballast = small_disk / "ballast"
        _fill(ballast)
        limits = parts.moderator.champion("content").live.limits
        left = parts.budget.left(limits, time.time_ns() // 1000)

        refused = decide(client, SPAM * 100)
        left_then = parts.budget.left(limits, time.time_ns() // 1000)
        still_there = client.get(f"/v1/decisions/{acknowledged[0]}")
        ballast.unlink()
        answered = decide(client)

    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "log_full")
    assert refused.headers["retry-after"] == "1"
    assert left_then == left == (limits[0].most - len(acknowledged), limits[0])
    assert still_there.status_code == 200
    assert answered.status_code == 200
    acknowledged.append(answered.json()["decisions"][0]["decision_id"])
    parts.close()
    kept = [r for segment in sealed_segments(small_disk) for r in read_segment(segment)]
    assert [id_ for id_ in acknowledged if any(id_.encode() in r for r in kept)] == acknowledged
    assert len(kept) == len(acknowledged)


@pytest.mark.parametrize("small_disk", ["budget"], indirect=True)
def test_a_disk_without_room_for_a_days_first_action_is_answered_with_503_and_kills_nobody(
    small_disk: Path, team: Team, key: str, first: Bundle
) -> None:
    parts = Parts(team.home)
    with TestClient(parts.door, headers={"authorization": f"Bearer {key}"}) as client:
        parts.tick()
        _fill(small_disk / "ballast")

        refused = decide(client)
        (small_disk / "ballast").unlink()
        answered = decide(client)

    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "log_full")
    assert answered.json()["decisions"][0]["action"] == "block"
    parts.close()


def test_a_file_that_may_not_grow_is_answered_with_503_and_goes_on_when_it_may(
    team: Team, key: str, first: Bundle
) -> None:
    """The same without root: the limit on the size of a file gives EFBIG where a full disk gives ENOSPC."""
    parts = Parts(team.home)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TestClient(parts.door, headers={"authorization": f"Bearer {key}"}) as client:
        parts.tick()
        decide(client)
        [segment] = (team.home / "decisions").glob("*.open")
        written = max(end for end, _ in frames(segment.read_bytes()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (written + 100, before[1]))
        try:
            refused = decide(client, SPAM * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        answered = decide(client)

    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "log_full")
    assert answered.status_code == 200
    parts.close()
    [sealed] = sealed_segments(team.home / "decisions")
    assert len(list(read_segment(sealed))) == 2


def test_a_bulk_stream_that_a_full_disk_cuts_says_so_and_is_counted_and_noted_as_such(
    parts: Parts, client: TestClient, team: Team, first: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    parts.tick()
    [segment] = (team.home / "decisions").glob("*.open")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + SIZE, before[1]))
    lines = json.dumps({"text": SPAM}).encode() + b"\n"
    try:
        answer = client.post(
            "/v1/bulk?detector=content", content=lines * 2000, headers={"content-type": "application/jsonl"}
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    *decided, last = map(json.loads, answer.text.splitlines())
    assert 128 <= len(decided) < 2000
    assert (last["ended_at_line"], last["error"]["type"]) == (len(decided) + 1, "log_full")
    assert 'mews_responses_total{route="/v1/bulk",status="503"} 1.0' in client.get("/metrics").text
    assert [(r.status, r.error) for r in caplog.records if r.name == "mews.requests"] == [(503, "log_full")]  # type: ignore[attr-defined]


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return
