import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from feature_repo.forget import forget_online
from feature_repo.lake import Lake
from serving.compaction import compact
from serving.record import Record
from serving.segments import waiting
from serving.strike_stores import Strike, StrikeStore, open_strikes
from serving.strikes import Strikes, strike_of
from serving.vault import Vault
from tests.feature_repo.redis_server import BINARY, redis_server
from tests.serving.decisions import NOW_US, log, record, request
from training.policy import Action, LabelPolicy, Policy, Privacy, Step

LABEL = LabelPolicy(definition="spam", action=Action.THROTTLE, ladder=[Step(strikes=1, action=Action.BLOCK)])
POLICY = Policy(name="content", labels={"spam": LABEL}, strike_days=2)
DAY_US = 86_400_000_000
ANN = {"account_id": "ann"}


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.service)])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where Redis answers; nowhere for SQLite."""
    if request.param == "sqlite":
        yield ""
        return
    if BINARY is None:
        pytest.skip("no redis-server on this machine")
    with redis_server(tmp_path) as server:
        yield server.connection


@pytest.fixture
def store(redis: str, tmp_path: Path) -> StrikeStore:
    return open_strikes(tmp_path, redis=redis, deadline_s=10)


def against(account: str, *, days_ago: float = 0, **fields: Any) -> Record:
    at_us = NOW_US - int(days_ago * DAY_US)
    return record(request(account_id=account), at_us=at_us, **{"action": Action.THROTTLE, **fields})


def add(strikes: Strikes, *records: Record, policy: Policy = POLICY) -> None:
    strikes.add([strike for one in records if (strike := strike_of(policy, one))])


def count(strikes: Strikes, *, policy: Policy = POLICY, account: str = "ann") -> int | None:
    return strikes.of([(policy, {"account_id": account})]).of(policy, {"account_id": account})


def test_a_strike_counts_once_however_often_it_is_added_and_by_whom(store: StrikeStore) -> None:
    one, other = Strikes(store), Strikes(store)
    decided = against("ann")

    add(one, decided, against("ann"))
    add(other, decided, decided)

    assert count(one) == count(other) == 2


def test_a_strike_expires_and_belongs_to_one_account_of_one_policy(store: StrikeStore) -> None:
    strikes = Strikes(store)
    add(strikes, against("ann"), against("ann", days_ago=1.5), against("ann", days_ago=3))

    shorter, other = POLICY.model_copy(update={"strike_days": 1}), POLICY.model_copy(update={"name": "other"})

    assert (count(strikes), count(strikes, policy=shorter)) == (2, 1)
    assert count(strikes, account="bob") == count(strikes, policy=other) == 0


def test_what_is_mild_or_of_no_account_or_under_a_policy_without_a_ladder_is_no_strike() -> None:
    flat = POLICY.model_copy(update={"labels": {"spam": LABEL.model_copy(update={"ladder": []})}})

    assert strike_of(POLICY, against("ann")) is not None
    assert strike_of(POLICY, against("ann", action=Action.LOG)) is None
    assert strike_of(POLICY, against("")) is None
    assert strike_of(flat, against("ann")) is None


def test_a_clock_that_jumps_ahead_takes_nobodys_strikes(store: StrikeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    strikes, ahead_ns = Strikes(store), time.time_ns() + 100 * DAY_US * 1000
    add(strikes, against("ann"), against("ann", days_ago=1))

    with monkeypatch.context() as jumped:
        jumped.setattr(time, "time_ns", lambda: ahead_ns)
        add(strikes, against("ann", days_ago=-100), against("bob", days_ago=-100))

    assert count(strikes) == 3


def test_a_strike_counts_no_longer_than_its_decision_is_kept(store: StrikeStore) -> None:
    kept_a_day = POLICY.model_copy(update={"privacy": Privacy(retention_days=1)})
    strikes = Strikes(store)

    add(strikes, against("ann", days_ago=0.5), against("ann", days_ago=1.5), policy=kept_a_day)

    assert count(strikes, policy=kept_a_day) == 1


def test_the_decisions_of_one_request_count_for_those_after_them() -> None:
    strikes = Strikes(open_strikes(Path("/nowhere"), deadline_s=1))

    counts = strikes.of([])
    counts.known["content", "ann"] = 3
    counts.note(POLICY, against("ann"))

    assert counts.of(POLICY, ANN) == 4
    assert [strike.account for strike in counts.fresh] == ["ann"]


def test_what_was_logged_and_never_added_is_made_up_for_from_log_and_lake(store: StrikeStore, tmp_path: Path) -> None:
    folder, lake = tmp_path / "decisions", Lake(tmp_path / "lake")
    days = [datetime.fromtimestamp(NOW_US / 1e6, UTC).date()]
    log(folder, against("ann"), against("ann", role="challenger"), against("ann", action=Action.ALLOW))
    compact(folder, lake, Vault(tmp_path / "keys"), days=waiting(folder), first_day=days[0])
    known = against("ann", role="canary")
    log(folder, known, against("ann", days_ago=3), against("bob"))
    strikes = Strikes(store, past=(folder, lake.root))
    add(strikes, known)

    strikes.tick([POLICY])
    strikes.tick([POLICY])

    assert list(lake.files("log", "decisions"))
    assert (count(strikes), count(strikes, account="bob")) == (2, 1)


def test_an_unreadable_past_keeps_nobody_from_counting(store: StrikeStore, tmp_path: Path) -> None:
    day = tmp_path / "lake" / "log" / "decisions" / f"day={datetime.now(UTC).date().isoformat()}"
    day.mkdir(parents=True)
    (day / "broken.parquet").write_bytes(b"no Parquet")
    strikes = Strikes(store, past=(tmp_path / "decisions", tmp_path / "lake"))

    strikes.tick([POLICY])
    add(strikes, against("ann"))

    assert count(strikes) == 1


def test_an_account_that_is_forgotten_has_no_strikes(store: StrikeStore, redis: str, tmp_path: Path) -> None:
    strikes = Strikes(store)
    add(strikes, against("ann"), against("bob"))

    forget_online(tmp_path, {"account_id": ["ann"]}, redis=redis)

    assert (count(strikes), count(strikes, account="bob")) == (0, 1)


def test_a_store_that_is_away_is_owed_what_it_does_not_take(tmp_path: Path) -> None:
    feast = tmp_path / "feast"
    feast.write_bytes(b"a file where a folder should be")
    strikes = Strikes(open_strikes(tmp_path, deadline_s=1))

    add(strikes, against("ann"))
    before = (count(strikes), strikes.num_owed)
    feast.unlink()
    strikes.tick([])

    assert before == (None, 1)
    assert (count(strikes), strikes.num_owed) == (1, 0)


def test_who_decides_does_not_wait_while_the_past_is_read(store: StrikeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    is_read, reading = threading.Event(), threading.Event()

    def slow(*_: object) -> list[Strike]:
        reading.set()
        assert is_read.wait(60)
        return [strike for n in range(2500) if (strike := strike_of(POLICY, against("ann", days_ago=n / 2500)))]

    monkeypatch.setattr("serving.strikes._missed", slow)
    strikes = Strikes(store, past=(Path("/nowhere"), Path("/nowhere")))
    ticking = threading.Thread(target=strikes.tick, args=([POLICY],))
    ticking.start()
    assert reading.wait(60)

    meanwhile = count(strikes)
    is_read.set()
    ticking.join()

    assert (meanwhile, count(strikes)) == (0, 2500)


def test_a_strike_that_a_changed_policy_counts_for_longer_outlives_the_strikes_of_others(store: StrikeStore) -> None:
    longer, old = POLICY.model_copy(update={"strike_days": 30}), against("ann", days_ago=3)
    strikes = Strikes(store)
    add(strikes, old)

    add(strikes, old, policy=longer)
    add(strikes, against("bob"), policy=longer)

    assert (count(strikes), count(strikes, policy=longer)) == (0, 1)
