import random
from datetime import date
from pathlib import Path

import pytest
from feast import FeatureStore

from feature_repo import compute, online
from feature_repo.lake import DAY_US, Lake, start_us
from feature_repo.online import OnlineFeatures, materialize
from feature_repo.store import open_store
from feature_repo.tables import TABLES
from feature_repo.windows import SERVICES, VIEWS
from tests.feature_repo.test_windows import write

DAYS = [date(2026, 3, 9), date(2026, 3, 10)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def store(home: Path) -> FeatureStore:
    return open_store(home)


@pytest.fixture(scope="module")
def events(home: Path) -> dict[str, list[dict[str, object]]]:
    """Two days of a small service, in the lake; the second day is also what is pushed."""
    generator, lake = random.Random(7), Lake(home / "lake")
    rows: dict[str, list[dict[str, object]]] = {"requests": [], "payments": [], "accounts": []}
    for day in DAYS:
        today = {table: [_event(generator, table, day, n) for n in range(60)] for table in rows}
        for table, some in today.items():
            write(lake, table, some, day)
            rows[table] += some
        compute.compute_day(lake, day)
    return rows


def _event(generator: random.Random, table: str, day: date, number: int) -> dict[str, object]:
    at_us = start_us(day) + generator.randrange(DAY_US)
    event: dict[str, object] = dict.fromkeys(TABLES[table].columns)
    event |= {"event_id": f"{table}-{day}-{number}", "event_us": at_us, "arrived_us": at_us, "num_tokens": number}
    for name, values in {
        "account_id": "abcd",
        "ip": "ij",
        "card_id": "klm",
        "merchant_id": "no",
        "device_id": "pq",
    }.items():
        event[name] = generator.choice(values)
    event |= {"kind": generator.choice(["signup", "daily"]), "text": "hello", "amount": generator.random() * 100}
    event |= {"plan": generator.choice(["free", "paid"]), "email_domain": "post.example"}
    kept = {name: event[name] for name in TABLES[table].columns}
    return kept | ({"kind": "prompt"} if table == "requests" else {})


@pytest.mark.parametrize("service", ["payment_v1", "account_v1"])
def test_online_equals_offline_after_a_day_of_pushes_in_any_order_and_twice(
    home: Path, store: FeatureStore, events: dict[str, list[dict[str, object]]], service: str
) -> None:
    lake, reader = Lake(home / "lake"), OnlineFeatures(store, service)
    materialize(lake, store, DAYS[0])
    pushes = [(table, e) for table, rows in events.items() for e in rows if e["event_us"] >= start_us(DAYS[1])]
    random.Random(1).shuffle(pushes)
    for table, event in [*pushes, *pushes[:50]]:
        reader.push(table, [event])
    at_us = start_us(DAYS[1]) + DAY_US
    entities = [
        {"account_id": a, "ip": i, "card_id": c, "merchant_id": m, "device_id": d}
        for a, i, c, m, d in [("a", "i", "k", "n", "p"), ("b", "j", "l", "o", "q"), ("nobody", "i", "m", "n", "q")]
    ]

    rows = reader.read(entities, at_us)

    for entity, row in zip(entities, rows, strict=True):
        expected = {}
        for name in SERVICES[service].views:
            view = VIEWS[name]
            expected |= compute.features_at(lake, view, [(entity[view.entity], at_us)])[0]
        assert row.values == expected


def test_a_known_entity_is_present_an_unknown_one_missing_and_an_old_one_expired(
    home: Path, store: FeatureStore, events: dict[str, list[dict[str, object]]]
) -> None:
    materialize(Lake(home / "lake"), store, DAYS[1])
    reader = OnlineFeatures(store, "account_v1")
    known, unknown = (
        {"account_id": "a", "ip": "i", "device_id": "p"},
        {"account_id": "zz", "ip": None, "device_id": "p"},
    )

    now, later = start_us(DAYS[1]) + DAY_US, start_us(DAYS[1]) + DAY_US + online.TTL_US + DAY_US

    assert reader.read([known], now)[0].status["num_requests_7d"] == "present"
    assert reader.read([unknown], now)[0].status["num_requests_7d"] == "missing"
    assert reader.read([unknown], now)[0].values["num_ip_accounts_1d"] is None
    assert reader.read([known], later)[0].status["num_requests_7d"] == "expired"


def test_two_signups_of_one_microsecond_and_one_without_a_plan_read_the_same_online_and_offline(
    tmp_path: Path,
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
    lake, store, view = Lake(tmp_path / "lake"), open_store(tmp_path), VIEWS["account_profile"]
    write(lake, "accounts", rows, DAYS[0])
    at_us = start_us(DAYS[1])

    materialize(lake, store, DAYS[0])
    online_rows = OnlineFeatures(store, "content_v1").read([{"account_id": "a"}, {"account_id": "b"}], at_us)

    assert [row.values for row in online_rows] == compute.features_at(lake, view, [("a", at_us), ("b", at_us)])
    assert online_rows[1].values["plan"] is None
