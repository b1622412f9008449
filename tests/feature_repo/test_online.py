import itertools
import json
import random
import signal
import subprocess
import sys
import threading
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo import compute, online
from feature_repo.facts import Slot
from feature_repo.lake import DAY_US, Lake, start_us
from feature_repo.online import FeatureRow, OnlineFeatures
from feature_repo.push import push
from feature_repo.rebuild import rebuild
from feature_repo.state import TAIL
from feature_repo.states import States
from feature_repo.tables import TABLES
from feature_repo.windows import SERVICES, VIEWS
from tests.feature_repo.online_stores import kind, opened, project, states
from tests.feature_repo.records import label_row, write

__all__ = ["kind", "project", "states"]
DAYS = [date(2026, 3, 9), date(2026, 3, 10)]
END_US = start_us(DAYS[1]) + DAY_US
IDS = {"account_id": "abcd", "ip": "ij", "card_id": "klm", "merchant_id": "no", "device_id": "pq"}
EVERYBODY = [dict(zip(IDS, keys, strict=True)) for keys in itertools.product(*IDS.values())]
Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def events() -> Events:
    """Two days of a small service: events, and verdicts about its payments a while later."""
    generator, rows = random.Random(7), []
    for day, number in itertools.product(DAYS, range(80)):
        rows += [(table, _event(generator, table, day, number)) for table in ("requests", "payments", "accounts")]
    payments = [event for table, event in rows if table == "payments"]
    for payment in generator.choices(payments, k=60):
        known_us = payment["event_us"] + generator.randrange(3_600_000_000)
        verdict = label_row(payment["event_id"], payment["event_us"], known_us, generator.randrange(2))
        rows.append(("labels", {**verdict, "merchant_id": payment["merchant_id"], "amount": payment["amount"]}))
    return rows


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, events: Events) -> Lake:
    return laid_down(tmp_path_factory.mktemp("lake"), events)


def laid_down(root: Path, events: Events) -> Lake:
    rows: dict[str, list[dict[str, Any]]] = {}
    for table, event in events:
        rows.setdefault(table, []).append({name: event.get(name) for name in TABLES[table].columns})
    return write(root, rows)


def _event(generator: random.Random, table: str, day: date, number: int) -> dict[str, Any]:
    at_us = start_us(day) + generator.randrange(DAY_US)
    event: dict[str, Any] = {name: generator.choice(values) for name, values in IDS.items()}
    event |= {"event_id": f"{table}-{day}-{number}", "event_us": at_us, "arrived_us": at_us, "num_tokens": number}
    event |= {"kind": generator.choice(["signup", "daily"]), "text": "hello", "amount": generator.random() * 100}
    event |= {"plan": generator.choice([None, "free", "paid"]), "email_domain": generator.choice("xyz") + ".example"}
    return {name: event[name] for name in TABLES[table].columns} | ({"kind": "prompt"} if table == "requests" else {})


def of_second_day(events: Events) -> Events:
    return [(t, e) for t, e in events if e["known_us" if t == "labels" else "event_us"] >= start_us(DAYS[1])]


def reader(states: States, service: str) -> OnlineFeatures:
    return OnlineFeatures(states, [VIEWS[name] for name in SERVICES[service].views])


def everything(states: States, at_us: int = END_US) -> list[list[FeatureRow]]:
    return [reader(states, service).read(EVERYBODY, [at_us] * len(EVERYBODY)) for service in SERVICES]


def offline(lake: Lake, at_us: int = END_US) -> list[list[dict[str, Any]]]:
    answers = {}
    for view in VIEWS.values():
        keys = sorted(IDS[view.entity])
        answers[view.name] = dict(
            zip(keys, compute.features_at(lake, view, [(key, at_us) for key in keys]), strict=True)
        )
    merged = []
    for service in SERVICES.values():
        rows = []
        for entity in EVERYBODY:
            row: dict[str, Any] = {}
            for name in service.views:
                row |= answers[name][entity[VIEWS[name].entity]]
            rows.append(row)
        merged.append(rows)
    return merged


def values(rows: list[list[FeatureRow]]) -> list[list[dict[str, Any]]]:
    return [[row.values for row in of_service] for of_service in rows]


PUSH = """
import json, random, sys, pathlib
from feature_repo.push import push
from tests.feature_repo.online_stores import opened
kind, home, project, seed = sys.argv[1:]
states, generator = opened(kind, pathlib.Path(home), project), random.Random(int(seed))
events = json.loads(pathlib.Path(home, "events.json").read_text())
events += generator.sample(events, len(events) // 3)
generator.shuffle(events)
while events:
    some = [events.pop() for _ in range(min(len(events), generator.randrange(1, 9)))]
    push(states, some)
    print(len(some), flush=True)
"""


def pusher(kind: str, home: Path, project: str, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUSH, kind, str(home), project, str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_processes_push_in_any_order_twice_and_through_a_crash_equals_the_lake(
    kind: str, project: str, states: States, tmp_path: Path, lake: Lake, events: Events
) -> None:
    rebuild(lake, states, DAYS[0])
    (tmp_path / "events.json").write_text(json.dumps(of_second_day(events)))

    pushers = [pusher(kind, tmp_path, project, seed) for seed in range(3)]
    for _ in range(8):
        assert pushers[0].stdout.readline()  # type: ignore[union-attr]
    pushers[0].send_signal(signal.SIGKILL)
    codes = [p.wait() for p in pushers]
    for p in pushers:
        p.stdout and p.stdout.close()

    assert codes == [-signal.SIGKILL, 0, 0]
    assert values(everything(states)) == offline(lake)


def test_the_nightly_rebuild_changes_nothing_that_was_pushed(states: States, lake: Lake, events: Events) -> None:
    rebuild(lake, states, DAYS[0])
    push(states, of_second_day(events))
    streamed = values(everything(states))

    rebuild(lake, states, DAYS[1])
    rebuild(lake, states, DAYS[1])

    assert values(everything(states)) == streamed == offline(lake)


@pytest.mark.parametrize("zone", ["inbox", "quarantine"])
def test_what_was_pushed_on_a_day_whose_batch_waits_outlives_later_rebuilds_and_counts_once_when_it_is_let_in(
    states: States, tmp_path: Path, lake: Lake, events: Events, zone: str
) -> None:
    late = laid_down(tmp_path / "lake", events)
    rebuild(late, states, DAYS[0])
    push(states, of_second_day(events))
    for table in ("requests", "payments"):
        waiting = late.folder("events", table, DAYS[1])
        (late.root / zone / table).mkdir(parents=True)
        waiting.rename(late.root / zone / table / waiting.name)

    for later in (1, 2):
        rebuild(late, states, DAYS[1] + timedelta(days=later))

    later_us = END_US + 2 * DAY_US
    assert values(everything(states, later_us)) == offline(lake, later_us)
    for table in ("requests", "payments"):
        (late.root / zone / table / waiting.name).rename(late.folder("events", table, DAYS[1]))
    rebuild(late, states, DAYS[1] + timedelta(days=3))
    assert values(everything(states, later_us + DAY_US)) == offline(lake, later_us + DAY_US)


def test_what_is_pushed_while_the_states_are_rebuilt_is_not_lost(
    kind: str, project: str, states: States, tmp_path: Path, lake: Lake, events: Events
) -> None:
    in_time = events[: len(events) // 2]
    known = laid_down(tmp_path / "known", in_time)  # the lake has not heard of the rest, which is pushed meanwhile
    waiting = of_second_day(events)
    random.Random(3).shuffle(waiting)

    def keep_pushing() -> None:
        mine = opened(kind, tmp_path, project)
        while waiting:
            push(mine, [waiting.pop()])

    rebuild(lake, states, DAYS[0])
    pushing, left = threading.Thread(target=keep_pushing), [len(waiting)]
    pushing.start()
    while pushing.is_alive():
        rebuild(known, states, DAYS[1])
        left.append(len(waiting))
    pushing.join()

    assert left[1] < left[0]
    together = [*in_time, *(pair for pair in of_second_day(events) if pair not in in_time)]
    assert values(everything(states)) == offline(laid_down(tmp_path / "together", together))


def test_a_rebuild_does_not_go_back_behind_a_later_one(states: States, lake: Lake, events: Events) -> None:
    rebuild(lake, states, DAYS[1])

    rebuild(lake, states, DAYS[0])

    assert values(everything(states)) == offline(lake)


def test_nothing_is_left_of_who_is_in_no_window_any_more(states: States, lake: Lake, tmp_path: Path) -> None:
    rebuild(lake, states, DAYS[1])
    request = {**dict.fromkeys(TABLES["requests"].columns), "event_id": "r", "account_id": "back", "num_tokens": 1}
    push(states, [("requests", {**request, "event_us": END_US + 60 * DAY_US})])

    rebuild(Lake(tmp_path / "empty"), states, DAYS[1] + timedelta(days=60))

    assert states.keys("account_id") == ["back"]
    assert not any(states.keys(entity) for entity in IDS if entity != "account_id")
    assert states.facts([Slot("account_activity", "a")]) == [[]]


def test_each_event_of_a_call_reads_what_was_before_its_own_moment(states: States, lake: Lake, events: Events) -> None:
    rebuild(lake, states, DAYS[1])
    payments = [event for table, event in of_second_day(events) if table == "payments"]
    payments = sorted(payments, key=lambda event: event["event_us"])[-TAIL:]  # as many of one entity are told apart

    rows = reader(states, "payment_v2").read(payments, [event["event_us"] for event in payments])

    for name in SERVICES["payment_v2"].views:
        view = VIEWS[name]
        expected = compute.features_at(lake, view, [(e[view.entity], e["event_us"]) for e in payments])
        assert [
            {feature: row.values[feature] for feature in row.values if feature in expected[0]} for row in rows
        ] == expected


def test_a_known_entity_is_present_an_unknown_one_missing_and_an_old_one_expired(states: States, lake: Lake) -> None:
    rebuild(lake, states, DAYS[1])
    known = {"account_id": "a", "ip": "i", "device_id": "p"}
    unknown = {"account_id": "zz", "ip": None, "device_id": "p"}

    now, later = reader(states, "account_v1").read([known, unknown], [END_US, END_US])
    (old,) = reader(states, "account_v1").read([known], [END_US + online.TTL_US + 1])

    assert (now.status["num_requests_7d"], now.status["plan"]) == ("present", "present")
    assert (later.status["num_requests_7d"], later.values["num_requests_7d"]) == ("missing", 0)
    assert (later.status["num_ip_accounts_1d"], later.values["num_ip_accounts_1d"]) == ("missing", None)
    assert (old.status["plan"], old.values["plan"]) == ("expired", None)


def test_a_signup_and_a_verdict_count_as_soon_as_they_are_pushed(states: States) -> None:
    signup = {"event_id": "s", "event_us": END_US, "account_id": "new", "kind": "signup", "ip": "i"}
    signup |= {"device_id": None, "plan": "trial", "email_domain": "post.example"}
    verdict = {**label_row("p", END_US, END_US + 5, 1), "merchant_id": "m", "amount": 12.5}

    push(states, [("accounts", signup), ("labels", verdict), ("labels", verdict)])

    asked = {"account_id": "new", "merchant_id": "m"}
    before, after = reader(states, "payment_v2").read([asked, asked], [END_US + 5, END_US + 6])
    assert (after.values["plan"], after.values["account_age_s"]) == ("trial", 6e-6)
    assert (before.values["num_known_1d"], after.values["num_known_1d"]) == (0, 1)
    assert (before.values["fraud_share_30d"], after.values["fraud_share_30d"]) == (None, 1.0)
    assert (before.values["mean_fraud_amount_7d"], after.values["mean_fraud_amount_7d"]) == (None, 12.5)
    assert (after.values["seconds_since_fraud"], after.values["seconds_since_genuine"]) == (1e-6, None)


def test_an_entity_without_a_moment_of_rest_stays_right_and_small(states: States) -> None:
    request = {"account_id": "busy", "ip": "i", "kind": "prompt", "num_tokens": 2}
    flood = [("requests", {**request, "event_id": f"r{n}", "event_us": END_US + n * 7_000_000}) for n in range(3000)]
    random.Random(5).shuffle(flood)

    for start in range(0, len(flood), 250):
        push(states, flood[start : start + 250])

    at_us = END_US + 3000 * 7_000_000
    (row,) = reader(states, "account_v1").read([{"account_id": "busy"}], [at_us])
    assert (row.values["num_requests_7d"], row.values["num_tokens_1d"], row.values["num_ips_7d"]) == (3000, 6000, 1)
    inside = sum(e["event_us"] >= VIEWS["account_activity"].windows[0].start(at_us) for _, e in flood)
    assert row.values["num_requests_1h"] == inside
    (found,) = states.find({Slot("account_activity", "busy"): []})
    assert len(found.state or b"") < 40_000


def test_two_signups_of_one_microsecond_and_one_without_a_plan_read_the_same_online_and_offline(
    states: States, tmp_path: Path
) -> None:
    signup: dict[str, object] = dict.fromkeys(TABLES["accounts"].columns)
    signup |= {"account_id": "a", "kind": "signup", "event_us": start_us(DAYS[0]), "arrived_us": start_us(DAYS[0])}
    later = {**signup, "event_us": start_us(DAYS[0]) + 1, "arrived_us": start_us(DAYS[0]) + 1, "plan": None}
    rows = [
        {**signup, "event_id": "s1", "plan": "trial", "email_domain": "b.example"},
        {**signup, "event_id": "s2", "plan": "paid", "email_domain": "a.example"},
        {**later, "event_id": "s3", "account_id": "b", "email_domain": "c.example"},
        {**signup, "event_id": "s4", "account_id": "b", "plan": "free"},
    ]
    lake = write(tmp_path / "lake", {"accounts": rows})
    view, at_us = VIEWS["account_profile"], start_us(DAYS[1])

    rebuild(lake, states, DAYS[0])
    accounts = [{"account_id": "a"}, {"account_id": "b"}]
    online_rows = reader(states, "content_v1").read(accounts, [at_us, at_us])

    assert [row.values for row in online_rows] == compute.features_at(lake, view, [("a", at_us), ("b", at_us)])
    assert online_rows[1].values["plan"] is None
