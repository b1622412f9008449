from pathlib import Path

import pytest
import redis

from feature_repo.forget import forget_online
from feature_repo.lake import DAY_US
from feature_repo.push import push
from feature_repo.states import States, open_states
from tests.feature_repo.online_stores import REDIS, kind, project, states
from tests.feature_repo.redis_server import BINARY, redis_server

__all__ = ["kind", "project", "states"]


def payment(number: int, account: str) -> tuple[str, dict[str, object]]:
    ids = {"event_id": f"p{number}", "account_id": account, "card_id": "c1", "merchant_id": "m1", "ip": "1.1.1.1"}
    return "payments", {**ids, "event_us": 20_000 * DAY_US + number, "amount": 1.0}


def test_what_an_account_owns_goes_and_what_others_own_stays(
    states: States, kind: str, project: str, tmp_path: Path
) -> None:
    push(states, [payment(1, "ann-4711"), payment(2, "bob-4711")])
    assert {"ann-4711", "bob-4711"} <= set(states.keys("account_id"))
    where = {"redis": REDIS if kind == "redis" else "", "project": project}

    num_deleted = forget_online(tmp_path, {"account_id": ["ann-4711"]}, **where)

    assert num_deleted > 0
    assert set(states.keys("account_id")) == {"bob-4711"}
    assert set(states.keys("card_id")) == {"c1"}
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"ann-4711" in content for content in files)
    assert forget_online(tmp_path, {"account_id": ["ann-4711"]}, **where) == 0


@pytest.mark.service
@pytest.mark.skipif(BINARY is None, reason="no redis-server")
def test_an_account_goes_from_a_redis_with_a_password(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "pass-of-redis")
        connection = f"{server.connection},password=pass-of-redis"
        states = open_states(tmp_path, redis=connection, deadline_s=10)
        push(states, [payment(1, "ann-4711"), payment(2, "bob-4711")])

        assert forget_online(tmp_path, {"account_id": ["ann-4711"]}, redis=connection) > 0

        assert states.keys("account_id") == ["bob-4711"]
