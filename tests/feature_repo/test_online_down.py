"""A Redis that is stopped, killed, slow or started again: the reader says so in time, and recovers by itself."""

import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.online import PAUSE_S, FeatureRow, FeaturesUnavailable, OnlineFeatures
from feature_repo.push import push
from feature_repo.states import open_states
from feature_repo.windows import SERVICES, VIEWS
from tests.feature_repo.redis_server import BINARY, RedisServer, redis_server

pytestmark = [pytest.mark.service, pytest.mark.skipif(BINARY is None, reason="no redis-server on this machine")]
NOW_US = 1_700_006_400_000_000
DEADLINE_S = 0.05
# A busy machine adds to it; without a deadline a stopped server would be waited for as long as it stops.
IN_TIME_S = 10 * DEADLINE_S
EVENT = {"event_id": "r", "event_us": NOW_US, "account_id": "a", "ip": "i", "kind": "prompt", "num_tokens": 5}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        push(open_states(tmp_path, redis=running.connection, deadline_s=5), [("requests", EVENT)])
        yield running


def reader(connection: str, deadline_s: float = DEADLINE_S) -> OnlineFeatures:
    states = open_states(Path(), redis=connection, deadline_s=deadline_s)
    return OnlineFeatures(states, [VIEWS[name] for name in SERVICES["account_v1"].views])


def read(features: OnlineFeatures) -> FeatureRow:
    return features.read([{"account_id": "a"}], [NOW_US + 1])[0]


def seconds_until_refused(features: OnlineFeatures) -> float:
    began = time.monotonic()
    with pytest.raises(FeaturesUnavailable):
        read(features)
    return time.monotonic() - began


def read_when_back(features: OnlineFeatures) -> FeatureRow:
    until = time.monotonic() + 10
    while True:
        try:
            return read(features)
        except FeaturesUnavailable:
            assert time.monotonic() < until
            time.sleep(PAUSE_S / 4)


def test_a_stopped_server_is_not_waited_for_and_found_again(server: RedisServer) -> None:
    features = reader(server.connection, deadline_s=1)
    before = read(features)

    server.signal(signal.SIGSTOP)
    first = seconds_until_refused(features)
    meanwhile = seconds_until_refused(features)  # at once: it was asked a moment ago
    server.signal(signal.SIGCONT)

    assert first < 1.5
    assert meanwhile < 0.1
    assert read_when_back(features) == before
    assert before.values["num_requests_1h"] == 1


def test_a_new_connection_to_a_stopped_server_is_not_waited_for_either(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)

    waited = seconds_until_refused(reader(server.connection.replace("db=0", "db=1")))

    server.signal(signal.SIGCONT)
    assert waited < IN_TIME_S


def test_a_killed_server_is_found_again_where_it_was_with_what_it_knew(server: RedisServer) -> None:
    features = reader(server.connection, deadline_s=1)
    before = read(features)
    time.sleep(1.5)  # appendfsync everysec

    server.signal(signal.SIGKILL)
    waited = seconds_until_refused(features)
    server.start()

    assert waited < 1.5
    assert read_when_back(features) == before


def test_what_is_pushed_before_and_after_a_kill_counts_once(server: RedisServer, tmp_path: Path) -> None:
    states = open_states(tmp_path, redis=server.connection, deadline_s=5)
    events = [("requests", {**EVENT, "event_id": f"r{n}"}) for n in range(40)]
    push(states, events[:20])
    time.sleep(1.5)

    server.signal(signal.SIGKILL)
    server.start()
    push(states, events)

    assert read(reader(server.connection, deadline_s=5)).values["num_requests_1h"] == 41


class _Slowly(socketserver.BaseRequestHandler):
    """Answers one HMGET of three states every 20 ms: each wait is short, all together are not."""

    def handle(self) -> None:
        self.request.recv(65536)
        for _ in range(100):
            try:
                self.request.sendall(b"*3\r\n$-1\r\n$-1\r\n$-1\r\n")
            except OSError:
                return  # the client went away, as it should
            time.sleep(0.02)


def test_a_server_that_answers_too_slowly_is_given_up() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Slowly) as slow:
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        features = reader(f"127.0.0.1:{slow.server_address[1]},db=0", deadline_s=0.2)

        began = time.monotonic()
        with pytest.raises(FeaturesUnavailable):
            features.read([{"account_id": f"a{n}"} for n in range(100)], [NOW_US] * 100)
        waited = time.monotonic() - began

        slow.shutdown()
    assert waited < 1


def test_nobody_at_the_address_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    assert seconds_until_refused(reader(f"127.0.0.1:{port},db=0")) < IN_TIME_S
