"""A release whose promise live verdicts refute is flagged, and ended where its policy says so."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.lake import day_of, schema_of
from feature_repo.tables import DECISIONS, LABELS
from orchestration.approvals import Approvals
from orchestration.promises import recheck
from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.stages.deployment import deployment
from orchestration.stages.release import release as release_stage
from orchestration.standing import standing_text
from serving.bundle import Bundle
from serving.record import encode
from serving.release import seal_policy
from tests.orchestration.test_approval_flow import run, sign, spec, trained
from tests.serving.trust.test_hotfix import record
from training.policy import LabelPolicy, Policy, Promise

NAME, NUM_EVENTS = "payment_fraud", 1000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = Settings(tmp_path)
    Approvals(home).introduce({"ada": "ml", "grace": "policy"})
    publish(home, Promise(limit=0.05))
    return home


def publish(home: Settings, promise: Promise) -> None:
    run_dir = trained(home, "run-1", by="tom")
    sealed = {"fraud": {"promise": promise.model_dump(), "threshold": 0.5}}
    (run_dir / "bundle" / "thresholds.json").write_text(json.dumps(sealed))
    shelf.publish(run_dir)


def served(settings: Settings, when_promise_breaks: str) -> Bundle:
    labels = {"fraud": LabelPolicy(definition="A stolen card.")}
    policy = Policy(name="fraud", labels=labels, when_promise_breaks=when_promise_breaks)  # type: ignore[arg-type]
    run(settings, release_stage(spec(settings), policy))
    desk = Approvals(settings)
    release = desk.newest_release(NAME)
    sign(settings, release, desk.newest_policy("fraud"))
    run(settings, deployment(spec(settings)))
    return release


def live(
    settings: Settings, release: Bundle, *, num_flagged: int, value: int = 0, first_said: int | None = None
) -> None:
    """Payments of one verdict that people gave, some of which the release had flagged; what was first said of those.

    What was wrong was taken back on an appeal, whose verdict stands for no draw.
    """
    at_us = 1_700_000_000_000_000
    decisions, labels = [], []
    for i in range(NUM_EVENTS):
        one = record(0.9 if i < num_flagged else 0.1, at_us=at_us)
        one.event["event_id"] = f"pay-{i}"
        row = dict.fromkeys(DECISIONS.columns) | {"decision_id": f"d{i}", "at_us": at_us, "event_us": at_us}
        row |= {"event_table": "payments", "event_id": f"pay-{i}", "detector": NAME, "release": release.digest}
        row |= {"role": "champion", "degraded": False, "record": encode(one).decode()}
        decisions.append(row | {"labels": ["fraud"] if i < num_flagged else []})
        label = dict.fromkeys(LABELS.columns) | {"event_id": f"pay-{i}", "event_table": "payments", "event_us": at_us}
        label |= {"label": "fraud", "source": "reviewer", "sampling_probability": 0.5}
        is_taken_back = first_said is not None and i < num_flagged
        labels.append(label | {"known_us": at_us + 1, "value": first_said if is_taken_back else value})
        if is_taken_back:
            taken_back = {"known_us": at_us + 2, "value": value, "source": "appeal", "sampling_probability": 0.0}
            labels.append(label | taken_back)
    for zone, table, rows in (("log", DECISIONS, decisions), ("events", LABELS, labels)):
        folder = settings.lake.folder(zone, table.name, day_of(at_us))  # type: ignore[arg-type]
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema_of(table)), folder / "a.parquet")


def test_a_kept_promise_stays_unremarked(settings: Settings) -> None:
    release = served(settings, "expire")
    live(settings, release, num_flagged=30)
    desk = Approvals(settings)

    [found] = recheck(desk, NAME)

    assert (found.num_wrong, found.num_rows, found.is_broken) == (30, NUM_EVENTS, False)
    assert desk.status(release).state == "approved"


def test_a_verdict_that_an_appeal_took_back_counts_as_the_appeal_says(settings: Settings) -> None:
    release = served(settings, "flag")
    live(settings, release, num_flagged=120, first_said=1)

    [found] = recheck(Approvals(settings), NAME)

    assert (found.num_wrong, found.num_rows, found.is_broken) == (120, NUM_EVENTS, True)


def test_a_broken_promise_flags_the_release_once(settings: Settings) -> None:
    release = served(settings, "flag")
    live(settings, release, num_flagged=120)
    desk = Approvals(settings)

    for _ in range(2):
        [found] = recheck(desk, NAME)

    approval = desk.status(release)
    assert found.is_broken
    assert approval.state == "approved"
    assert "**no longer holds**: fraud: benign_fpr 0.05 is broken" in standing_text(release, approval, service_url="")
    assert [e.kind for e in desk.ledger.entries()].count("promise_broken") == 1


def test_the_recall_promised_beside_a_false_positive_rate_is_watched_too(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    Approvals(settings).introduce({"ada": "ml", "grace": "policy"})
    publish(settings, Promise(limit=0.05, min_recall=0.8))
    live(settings, served(settings, "flag"), num_flagged=500, value=1)

    by_rate, by_recall = recheck(Approvals(settings), NAME)

    assert (by_rate.kind, by_rate.num_rows, by_rate.is_broken) == ("benign_fpr", 0, False)
    assert (by_recall.limit, by_recall.num_wrong, by_recall.is_broken) == (0.8, 500, True)


def test_a_broken_promise_ends_the_release_where_the_policy_says_so(settings: Settings) -> None:
    release = served(settings, "expire")
    live(settings, release, num_flagged=120)
    desk = Approvals(settings)

    recheck(desk, NAME)

    assert desk.servable(NAME) is None
    assert desk.status(release).state == "expired"
    assert desk.status(release).reason.startswith("a promise no longer holds: fraud: benign_fpr 0.05 is broken")


def test_a_promise_that_broke_under_a_policy_that_flags_ends_the_release_under_one_that_expires(
    settings: Settings,
) -> None:
    release = served(settings, "flag")
    live(settings, release, num_flagged=120)
    desk = Approvals(settings)
    recheck(desk, NAME)
    flagged = desk.status(release).state
    labels = {"fraud": LabelPolicy(definition="A stolen card.")}
    stricter = Policy(name="fraud", version=2, labels=labels, when_promise_breaks="expire")
    sealed = seal_policy(stricter, settings.policies, started_by="tom")
    sign(settings, sealed)
    desk.deploy(release, sealed)

    recheck(desk, NAME)

    assert (flagged, desk.status(release).state) == ("approved", "expired")
