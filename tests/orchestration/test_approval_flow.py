import os
import time
from pathlib import Path

import dagster as dg
import pytest

from orchestration.approvals import Approvals
from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.stages.candidate import STARTED_BY
from orchestration.stages.deployment import approval_sensor, approvals_last, deployment
from orchestration.stages.release import release
from serving.approval import NotApproved, SigningRefused
from serving.bundle import Bundle
from serving.release import GateNotPassed
from tests.serving.trust.conftest import advance, make_run
from training.detector import DetectorSpec
from training.policy import LabelPolicy, Policy

POLICY = Policy(name="fraud", labels={"fraud": LabelPolicy(definition="A stolen card.")})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = Settings(tmp_path)
    Approvals(home).introduce({"ada": "ml", "grace": "policy"})
    trained(home, "run-1", by="tom")
    return home


def trained(settings: Settings, run_id: str, *, by: str) -> Path:
    """A run as the stage `candidate` leaves it."""
    run_dir = make_run(settings.runs / "payment_fraud" / run_id)
    (run_dir / STARTED_BY).write_text(by)
    (run_dir / "card.md").write_text(f"# {run_id}\n")
    shelf.publish(run_dir)
    return run_dir


def spec(settings: Settings) -> DetectorSpec:
    run_dir = shelf.latest(settings.runs / "payment_fraud")
    return DetectorSpec.model_validate_json((run_dir / "detector.json").read_text())


def seal(settings: Settings, *, by: str = "tom") -> tuple[Bundle, Bundle]:
    run(settings, release(spec(settings), POLICY), by=by)
    desk = Approvals(settings)
    return desk.newest_release("payment_fraud"), desk.newest_policy("fraud")


def run(settings: Settings, asset: dg.AssetsDefinition, *, by: str = "tom") -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([asset], resources={"settings": settings}, instance=instance, tags={"started_by": by})


def sign(settings: Settings, *bundles: Bundle, people: tuple[str, ...] = ("ada", "grace")) -> None:
    desk = Approvals(settings)
    for bundle in bundles:
        for person in people:
            desk.sign(bundle, desk.signer(person))


def tick(settings: Settings) -> dg.SensorResult | dg.SkipReason:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"settings": settings})
        return approval_sensor(spec(settings))(context)


def test_who_trained_a_candidate_cannot_sign_it_though_another_sealed_it(settings: Settings) -> None:
    trained(settings, "run-2", by="ada")
    sealed, _ = seal(settings, by="tom")

    with pytest.raises(SigningRefused, match="ada"):
        sign(settings, sealed, people=("ada",))


def test_who_sealed_a_release_cannot_sign_it_though_another_trained_it(settings: Settings) -> None:
    sealed, _ = seal(settings, by="grace")

    with pytest.raises(SigningRefused, match="grace"):
        sign(settings, sealed, people=("grace",))


def test_a_candidate_that_failed_its_gate_is_not_sealed(settings: Settings) -> None:
    run_dir = shelf.latest(settings.runs / "payment_fraud")
    (run_dir / "verdict.json").write_text(
        '{"passed": false, "reason": "recall fell", "criteria": [{"name": "recall", "passed": false}]}'
    )

    with pytest.raises(GateNotPassed, match="recall fell"):
        seal(settings)


@pytest.mark.parametrize("signers", [(), ("ada",), ("grace",)])
def test_a_release_without_both_signatures_is_not_deployed(settings: Settings, signers: tuple[str, ...]) -> None:
    sealed, policy = seal(settings)
    sign(settings, policy)
    sign(settings, sealed, people=signers)

    with pytest.raises(NotApproved, match="waiting"):
        run(settings, deployment(spec(settings)))
    assert Approvals(settings).servable("payment_fraud") is None


def test_an_approval_starts_the_deployment_once(settings: Settings) -> None:
    sealed, policy = seal(settings)
    before = tick(settings)
    sign(settings, sealed, policy)
    after = tick(settings)
    run(settings, deployment(spec(settings)))

    assert isinstance(before, dg.SkipReason)
    assert isinstance(after, dg.SensorResult)
    assert len(after.run_requests or []) == 1
    assert isinstance(tick(settings), dg.SkipReason)


def test_a_deployment_that_failed_is_asked_for_again_and_ever_more_rarely(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_ns, keys = time.time_ns(), []
    sign(settings, *seal(settings))

    for minute in range(240):
        monkeypatch.setattr(time, "time_ns", lambda now_ns=signed_ns + (minute * 60 + 30) * 10**9: now_ns)
        found = tick(settings)
        assert isinstance(found, dg.SensorResult)
        keys += [request.run_key for request in found.run_requests or []]

    firsts = [minute for minute, key in enumerate(keys) if key not in keys[:minute]]
    assert firsts == [0, 1, 2, 4, 8, 16, 32, 64, 128]


def test_what_a_person_went_back_from_is_not_deployed_again_by_itself(settings: Settings) -> None:
    first, policy = seal(settings)
    sign(settings, first, policy)
    run(settings, deployment(spec(settings)))
    trained(settings, "run-2", by="tom")
    second, _ = seal(settings)
    sign(settings, second)
    run(settings, deployment(spec(settings)))

    back = Approvals(settings).rollback("payment_fraud")

    assert back.release == first.digest != second.digest
    assert isinstance(tick(settings), dg.SkipReason)


def test_a_touched_folder_does_not_become_the_newest_release(settings: Settings) -> None:
    first, _ = seal(settings)
    trained(settings, "run-2", by="tom")
    second, _ = seal(settings)

    os.utime(first.path)
    os.utime(first.path / "manifest.json")

    assert Approvals(settings).newest_release("payment_fraud") == second != first


def test_an_approval_of_what_is_served_is_missed_two_weeks_before_it_expires(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, policy = seal(settings)
    sign(settings, sealed, policy)
    run(settings, deployment(spec(settings)))
    look = approvals_last(spec(settings))

    advance(monkeypatch, days=70)
    early = look(settings=settings)
    advance(monkeypatch, days=10)
    late = look(settings=settings)
    sign(settings, sealed, policy)
    renewed = look(settings=settings)
    advance(monkeypatch, days=90)
    expired = look(settings=settings)

    assert [one.passed for one in (early, late, renewed, expired)] == [True, False, True, False]
    assert expired.severity == dg.AssetCheckSeverity.ERROR
    assert "the release is approved for 10 days more; those who signed it can sign again" in late.description
    assert f"`mews sign {sealed.digest[:12]} --as NAME`" in late.description
