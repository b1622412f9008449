from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from feature_repo.lake import DAY_US, Lake, day_of
from feature_repo.tables import ENTITIES
from orchestration.detectors import Detector
from orchestration.retention import enforce
from serving.compaction import compact
from serving.record import PolicyRef
from serving.segments import waiting
from serving.vault import Vault
from tests.orchestration.conftest import FIRST, labels, payments
from tests.serving.decisions import NOW_US, log, record, request
from tests.training.conftest import behaviour_spec, text_spec
from training.detector import DetectorSpec
from training.policy import LabelPolicy, Policy, Privacy

TODAY = day_of(NOW_US)


def detector(spec: DetectorSpec, days: int | None) -> Detector:
    labels = {label: LabelPolicy(definition="-") for label in spec.labels}
    return Detector(spec, Policy(name=spec.policy, labels=labels, privacy=Privacy(retention_days=days)))


def put(lake: Lake, table: str, rows: pa.Table, *ages: int) -> None:
    for age in ages:
        lake.write("events", table, rows, day=TODAY - timedelta(days=age))


def test_days_go_when_every_policy_that_reads_their_table_lets_them(lake: Lake, tmp_path: Path) -> None:
    put(lake, "payments", payments(FIRST, 5), 40, 20, 1)
    put(lake, "labels", labels(FIRST), 40)
    short = detector(behaviour_spec(), 10)
    long = detector(behaviour_spec().model_copy(update={"name": "other"}), 30)

    gone = enforce(lake, tmp_path / "none", [short, long, detector(text_spec(), None)], today=TODAY)

    assert gone == {"events/payments": 1}
    assert lake.days("events", "payments") == [TODAY - timedelta(days=20), TODAY - timedelta(days=1)]
    assert enforce(lake, tmp_path / "none", [short], today=TODAY) == {"events/payments": 1, "events/labels": 1}


def test_a_policy_without_a_limit_keeps_everything_however_old(lake: Lake, tmp_path: Path) -> None:
    put(lake, "payments", payments(FIRST, 5), 4000)

    assert enforce(lake, tmp_path / "none", [detector(behaviour_spec(), None)], today=TODAY) == {}


def test_decisions_go_by_their_own_policy_and_those_of_others_stay(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    policies = [PolicyRef("payments", 1, "p"), PolicyRef("content", 1, "c")]
    log(folder, *(record(request(n), policy=policies[n % 2]) for n in range(10)))
    log(folder, *(record(request(n), policy=policies[0]) for n in range(3)))
    compact(folder, lake, Vault(tmp_path / "keys"), days=waiting(folder), first_day=FIRST)
    later = day_of(NOW_US + 31 * DAY_US)

    gone = enforce(lake, folder, [detector(behaviour_spec(), 30), detector(text_spec(), 365)], today=later)

    assert gone["log/decisions"] == 8
    with lake.connect() as connection:
        assert connection.execute("SELECT DISTINCT policy, count(*) FROM decisions GROUP BY 1").fetchall() == [
            ("content", 5)
        ]


def test_decisions_of_a_policy_without_a_detector_go_as_it_was_sealed_or_with_the_longest_kept(
    lake: Lake, tmp_path: Path
) -> None:
    folder = tmp_path / "decisions"
    names = ["was_sealed", "never_sealed"]
    log(folder, *(record(request(n), policy=PolicyRef(names[n % 2], 1, "p")) for n in range(10)))
    compact(folder, lake, Vault(tmp_path / "keys"), days=waiting(folder), first_day=FIRST)
    policy = detector(behaviour_spec(), 50).policy.model_copy(update={"name": "was_sealed"})

    gone = [
        enforce(lake, folder, [detector(text_spec(), 30)], today=day_of(NOW_US + age * DAY_US), sealed=[policy])
        for age in (31, 51)
    ]

    assert [of_day["log/decisions"] for of_day in gone] == [5, 5]


def test_an_altered_segment_does_not_outlive_every_policy(lake: Lake, tmp_path: Path) -> None:
    segment = log(tmp_path / "decisions", record(request()))
    later = day_of(NOW_US + 31 * DAY_US)

    assert enforce(lake, segment.parent, [detector(behaviour_spec(), 30)], today=later) == {"segments": 1}
    assert not segment.exists()


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_a_retention_out_of_bounds_is_refused_by_field_value_and_limit(days: int) -> None:
    with pytest.raises(ValidationError, match=rf"policy\.privacy\.retention_days is {days}; it must lie in 1 to 3650"):
        Privacy(retention_days=days)


def test_every_entity_can_be_hashed_and_nothing_else() -> None:
    assert Privacy(hashed=list(ENTITIES)).hashed == list(ENTITIES)
    with pytest.raises(ValidationError, match=r"hashed\.0"):
        Privacy.model_validate({"hashed": ["text"]})
