import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from typer.testing import CliRunner

from feature_repo.compute import compute_days
from feature_repo.lake import DAY_US, Lake, day_of, schema_of, start_us
from feature_repo.push import push
from feature_repo.rebuild import rebuild
from feature_repo.states import open_states
from feature_repo.store import open_store
from feature_repo.tables import PAYMENTS
from feature_repo.training_set import build
from feature_repo.windows import SERVICES
from orchestration.cli import app
from orchestration.forgetting import Forgotten, StillWritten, forget
from orchestration.settings import Settings
from orchestration.validation import Report, validate_batch
from serving.bundle import seal
from serving.decision_log import DecisionLog
from serving.privacy import pseudonym
from serving.record import decode, encode
from serving.vault import Vault
from tests.orchestration.conftest import FIRST, labels, payments
from tests.serving.decisions import NOW_US, log, record, request

ANN = "ann-4711"
TEXT = "words that nobody else wrote"
DAYS = [FIRST + timedelta(days=n) for n in range(2)]
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")  # inside Feast's duckdb store

THEIRS = ("ann-4711", "p-of-ann", "r-of-ann")


def with_ann(rows: pa.Table) -> pa.Table:
    """Every tenth payment is hers."""
    hers = [i % 10 == 0 for i in range(len(rows))]
    ids = [f"p-of-ann-{old}" if h else old for h, old in zip(hers, rows["event_id"].to_pylist(), strict=True)]
    accounts = [ANN if h else old for h, old in zip(hers, rows["account_id"].to_pylist(), strict=True)]
    for name, values in (("event_id", ids), ("account_id", accounts)):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows


def verdicts(day: Any) -> pa.Table:
    rows = labels(day)
    ids = [f"p-of-ann-{id_}" if number % 10 == 0 else id_ for number, id_ in enumerate(rows["event_id"].to_pylist())]
    return rows.set_column(0, "event_id", pa.array(ids))


def hers(number: int, vault: Vault, **columns: Any) -> bytes:
    event = request(number, event_id=f"r-of-ann-{number}", account_id=ANN) | columns
    return encode(record(event, vault=vault, text=f"{TEXT} {number}"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, first_day=FIRST, memory_limit="1GB")


@pytest.fixture
def vault(settings: Settings) -> Vault:
    return Vault(settings.home / "keys")


@pytest.fixture
def writer(settings: Settings) -> Iterator[DecisionLog]:
    """A service's log, which ticks as a service does."""
    made, is_over = DecisionLog(settings.decisions), threading.Event()

    def tick() -> None:
        while not is_over.wait(0.2):
            made.tick()

    ticking = threading.Thread(target=tick)
    ticking.start()
    yield made
    is_over.set()
    ticking.join()
    made.close()


@pytest.fixture
def lived_in(
    settings: Settings, lake: Lake, vault: Vault, writer: DecisionLog, arrive: Callable[..., None]
) -> Settings:
    """A home in which the account is everywhere: log, lake, quarantine, features, online state, training sets."""
    for day in DAYS:
        arrive(day, with_ann(payments(day)))
        lake.write("inbox", "labels", verdicts(day), day=day)
        assert validate_batch(lake, "payments", day).passed
        assert validate_batch(lake, "labels", day, label_names={"fraud"}).passed
    bad = with_ann(payments(DAYS[-1], prefix="bad"))
    arrive(DAYS[-1] + timedelta(days=1), pa.concat_tables([bad, bad]))
    assert not validate_batch(lake, "payments", DAYS[-1] + timedelta(days=1)).passed
    compute_days(lake, DAYS[0], DAYS[-1], views=SERVICES["payment_v2"].views)
    store = open_store(settings.home)
    states = open_states(settings.home, deadline_s=30)
    rebuild(lake, states, DAYS[-1])
    event = {"event_id": "p-of-ann-pushed", "event_us": start_us(DAYS[-1]) + 2 * DAY_US, "account_id": ANN}
    push(states, [("payments", {**event, "card_id": "c1", "merchant_id": "m1", "ip": "1.1.1.1", "amount": 1.0})])
    build(lake, store, events="payments", labels=["fraud"], feature_service="payment_v2", out=training_set(settings))
    for copied in ("runs/payment_fraud/run/unseen/gift", "searches/payment_fraud/search/trials/0000"):
        (settings.home / copied).mkdir(parents=True)
        (settings.home / copied / "training_set.parquet").hardlink_to(training_set(settings) / "data.parquet")
    log(settings.decisions, record(request(1), vault=vault, text="another's words"))
    writer.write([hers(1, vault), hers(2, vault, account_id=pseudonym(ANN, vault))])
    return settings


def training_set(settings: Settings) -> Path:
    return settings.training_sets / "payment_fraud" / "run"


def traces(home: Path, words: list[str]) -> list[str]:
    """Every file that holds one of the words, as bytes or, in Parquet, as a value."""
    found = []
    for file in sorted(path for path in home.rglob("*") if path.is_file() and not path.is_symlink()):
        content = file.read_bytes()
        if content[:4] == b"PAR1":
            content += json.dumps(pq.read_table(file, partitioning=None).to_pylist(), default=str).encode()
        found += [f"{file.relative_to(home)}: {word}" for word in words if word.encode() in content]
    return found


@pytest.mark.slow
def test_nothing_of_a_forgotten_account_is_left_in_any_file(lived_in: Settings, lake: Lake, vault: Vault) -> None:
    words = [*THEIRS, pseudonym(ANN, vault), TEXT]
    assert {trace.split("/")[0] for trace in traces(lived_in.home, words)} >= {
        "decisions",
        "lake",
        "feast",
        "training_sets",
        "runs",
        "searches",
    }
    num_before = pq.read_metadata(training_set(lived_in) / "data.parquet").num_rows

    done = forget(lived_in, ANN)

    assert traces(lived_in.home, words) == []
    assert [left.partition(":")[0] for left in done.left] == ["Dagster's event log"]
    assert done.rows["events/payments"] == 40
    assert done.rows["events/labels"] == 2
    assert done.rows["log/decisions"] == 2
    assert {"quarantine/payments", "inbox/requests", "features/account_payments", "online state"} <= done.rows.keys()
    manifest = json.loads((training_set(lived_in) / "manifest.json").read_text())
    assert manifest["num_rows"] == num_before - 2
    with lake.connect() as connection:
        assert connection.execute("SELECT count(*) FROM payments").fetchall() == [(2 * 180,)]
        assert connection.execute("SELECT event_id FROM decisions").fetchall() == [("r1",)]
    assert forget(lived_in, ANN) == Forgotten()


def trained_with_her(settings: Settings) -> Path:
    """The run of a release, with its training set and what that says of itself."""
    run = settings.runs / "payment_fraud" / "run1"
    run.mkdir(parents=True)
    pq.write_table(with_ann(payments(FIRST)), run / "training_set.parquet")
    (run / "training_set.json").write_text('{"num_rows": 200, "sha256": "that of before"}')
    (settings.home / "bundle").mkdir()
    seal(settings.home / "bundle", settings.releases, kind="release", name="payment_fraud", facts={"run_id": "run1"})
    return run


def test_what_only_the_account_used_goes_and_what_others_use_stays(settings: Settings, lake: Lake) -> None:
    rows = with_ann(payments(FIRST)).to_pylist()
    cards = ["card-of-ann" if number % 20 == 0 else "c-shared" for number in range(len(rows))]
    rows = [row | {"card_id": card} for row, card in zip(rows, cards, strict=True)]
    lake.write("events", "payments", pa.Table.from_pylist(rows, schema_of(PAYMENTS)), day=FIRST)
    compute_days(lake, FIRST, FIRST)
    states = open_states(settings.home, deadline_s=30)
    rebuild(lake, states, FIRST)
    assert set(states.keys("card_id")) == {"card-of-ann", "c-shared"}

    done = forget(settings, ANN)

    assert traces(settings.home, [*THEIRS, "card-of-ann"]) == []
    assert set(states.keys("card_id")) == {"c-shared"}
    assert done.rows["features/card_activity"] == 10


def test_what_runs_and_a_killed_step_left_of_an_event_goes_too(settings: Settings, lake: Lake) -> None:
    lake.write("events", "payments", with_ann(payments(FIRST)), day=FIRST)
    staged = lake.folder("events", "payments") / f".accepting-{FIRST}" / "part.parquet"
    errors = settings.runs / "payment_fraud" / "run" / "label_errors.csv"
    retired = settings.runs / "no_detector_any_more" / "run" / "predictions.parquet"
    for file in (staged, errors, retired):
        file.parent.mkdir(parents=True)
    pq.write_table(with_ann(payments(FIRST)), staged)
    errors.write_text(f"label,event_id,verdict\nfraud,p-of-ann-p-{FIRST}-0,1\nfraud,p-{FIRST}-1,0\n")
    pq.write_table(with_ann(payments(FIRST)).select(["event_id"]), retired)

    forget(settings, ANN)

    assert traces(settings.home, list(THEIRS)) == []
    assert errors.read_text() == f"label,event_id,verdict\nfraud,p-{FIRST}-1,0\n"
    assert pq.read_metadata(retired).num_rows == 180


def test_a_report_names_the_events_of_others_as_before(settings: Settings, lake: Lake) -> None:
    rows = with_ann(payments(FIRST, 30)).to_pylist()
    rows = [row | {"event_id": str(number), "amount": -1.0} for number, row in enumerate(rows)]
    lake.write("inbox", "payments", pa.Table.from_pylist(rows, schema_of(PAYMENTS)), day=FIRST)
    before = validate_batch(lake, "payments", FIRST)

    forget(settings, ANN)

    folder = lake.folder("quarantine", "payments", FIRST)
    after = Report.from_json((folder / "report.json").read_text())
    assert after == before.without({"0", "10", "20"}) != before
    assert (folder / "report.md").read_text() == after.to_markdown()


def test_half_a_report_is_named_as_left(settings: Settings, lake: Lake) -> None:
    half = lake.folder("quarantine", "payments", FIRST) / "report.json"
    half.parent.mkdir(parents=True)
    half.write_text('{"table": "payments", "day"')

    assert forget(settings, ANN).left == [f"quarantine/payments: day={FIRST}/report.json is no report"]


def test_while_the_online_store_is_away_nothing_is_forgotten(settings: Settings, lake: Lake) -> None:
    lake.write("events", "payments", with_ann(payments(FIRST)), day=FIRST)

    with pytest.raises(redis.ConnectionError):
        forget(replace(settings, redis="127.0.0.1:1,db=0"), ANN)

    assert forget(settings, ANN).rows == {"events/payments": 20}


def test_a_release_that_was_trained_with_the_account_is_named_each_time(settings: Settings) -> None:
    trained_with_her(settings)

    first, second = forget(settings, ANN), forget(settings, ANN)

    assert first.rows == {"runs/payment_fraud/run1": 20}
    assert second.left == first.left
    assert "was trained in run run1" in first.left[0]


def test_a_training_set_says_what_it_holds_even_after_a_kill_in_the_middle(settings: Settings) -> None:
    run = trained_with_her(settings)
    forget(settings, ANN)
    (run / "training_set.json").write_text('{"num_rows": 200, "sha256": "that of before", "was_reduced": true}')

    forget(settings, ANN)

    content = (run / "training_set.parquet").read_bytes()
    says = json.loads((run / "training_set.json").read_text())
    assert says == {"num_rows": 180, "sha256": hashlib.sha256(content).hexdigest(), "was_reduced": True}


def test_a_segment_that_is_not_sealed_when_asked_is_said_aloud(
    settings: Settings, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.forgetting.SEAL_S", 0.3)
    stuck = DecisionLog(settings.decisions)
    stuck.write([hers(1, vault)])

    with pytest.raises(StillWritten, match="was not sealed"):
        forget(settings, ANN)

    stuck.close()
    assert forget(settings, ANN).rows["log/decisions"] == 1


@pytest.mark.parametrize("content", [msgspec.json.encode({"account_id": ANN}), b"PAR1" + b"\xff" * 20 + b"PAR1"])
def test_a_file_that_cannot_be_read_is_named_as_left(settings: Settings, lake: Lake, content: bytes) -> None:
    garbage = lake.folder("quarantine", "payments", FIRST) / "part.parquet"
    garbage.parent.mkdir(parents=True)
    garbage.write_bytes(content)

    assert forget(settings, ANN).left == ["quarantine/payments: part.parquet is no Parquet"]


def test_a_file_with_an_apostrophe_in_its_name_is_written_again_without_the_account(
    settings: Settings, lake: Lake
) -> None:
    file = lake.write("inbox", "payments", with_ann(payments(FIRST)), day=FIRST, name="o'brien")

    assert forget(settings, ANN).rows == {"inbox/payments": 20}
    assert pq.read_metadata(file).num_rows == 180


def test_what_a_killed_run_left_of_a_batch_is_swept(settings: Settings, lake: Lake) -> None:
    file = lake.write("inbox", "payments", with_ann(payments(FIRST)), day=FIRST)
    left = lake.folder("events", "payments") / ".accepting" / file.name
    left.parent.mkdir(parents=True)
    left.hardlink_to(file)

    assert forget(settings, ANN).rows["inbox/payments"] == 20
    assert not left.parent.exists()
    assert traces(settings.home, [*THEIRS]) == []


def test_what_others_decided_today_stays(settings: Settings, lake: Lake, vault: Vault) -> None:
    log(settings.decisions, *(record(request(n), vault=vault, text="theirs") for n in range(5)))

    assert forget(settings, ANN) == Forgotten()

    with lake.connect() as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchall() == [(5,)]
    assert lake.days("inbox", "requests") == [day_of(NOW_US)]


def test_the_command_asks_first_and_says_what_was_removed(
    settings: Settings, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEWS_HOME", str(settings.home))
    log(settings.decisions, decode(hers(1, vault)))

    refused = CliRunner().invoke(app, ["forget", ANN], input="n\n")
    done = CliRunner().invoke(app, ["forget", ANN, "--yes"])

    assert refused.exit_code == 1
    assert done.exit_code == 0
    assert "log/decisions" in done.output
