"""A change at night: tried on what was logged, one signature, a budget, and gone after a day by itself."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.approval import NotApproved, SigningRefused, require_servable, sign, status
from serving.bundle import Bundle, seal
from serving.cuts import Condition, Cut, Move
from serving.deployment import deploy, deployed, rollback, servable
from serving.hotfix import Hotfix, HotfixRefused, backtest, read_hotfix, seal_hotfix
from serving.record import Features, PolicyRef, Record
from serving.sealed_files import BundleAltered
from serving.source import LedgerSource
from serving.standing import DAY_US
from tests.serving.trust.conftest import Office, advance
from training.policy import Action, LabelPolicy, Policy

POLICY = Policy(name="fraud", labels={"fraud": LabelPolicy(definition="A stolen card.")})
CUTS = {"fraud": Cut(0.5)}


def record(score: float, *, country: str = "AT", at_us: int = 0) -> Record:
    return Record(
        decision_id="dec_" + "0" * 32,
        at_us=at_us,
        request_id="r",
        caller="c",
        detector="payment_fraud",
        release="r",
        policy=PolicyRef("fraud", 1, "p"),
        role="champion",
        table="payments",
        event={"event_id": "e", "amount": 1000 * score, "country": country},
        text=None,
        text_digest=None,
        features=Features(),
        scores={"fraud": score},
        thresholds={"fraud": 0.5},
        labels=[],
        action=Action.ALLOW,
        reasons=[],
        degraded=False,
        actions_left=None,
        strikes=0,
        ended_early=None,
    )


RECORDS = [record(i / 200, country="AT" if i % 2 else "DE") for i in range(200)]


def hotfix(*moves: Move, **other: Any) -> Hotfix:
    known: dict[str, Any] = {"detector": "payment_fraud", "release": "r", "policy": "p", "reason": "false alarms"}
    return Hotfix(**(known | {"max_actions_per_day": 1000, "moves": list(moves)} | other))


RAISED = Move(label="fraud", threshold=0.9)
NEVER_IN_AUSTRIA = Move(label="fraud", threshold=None, where=[Condition(column="country", equals="AT")])
LARGE_ALWAYS = Move(label="fraud", threshold=0, where=[Condition(column="amount", at_least=200)])


@pytest.mark.parametrize(
    ("moves", "num_held"),
    [([RAISED], 20), ([NEVER_IN_AUSTRIA], 50), ([LARGE_ALWAYS], 160), ([NEVER_IN_AUSTRIA, LARGE_ALWAYS], 80)],
)
def test_a_backtest_decides_logged_events_as_the_service_would(moves: list[Move], num_held: int) -> None:
    found = backtest(hotfix(*moves), RECORDS, cuts=CUTS, policy=POLICY)

    assert found.before == {"allow": 100, "hold": 100}
    assert found.after == {"allow": 200 - num_held, "hold": num_held}
    assert found.num_harder - found.num_milder == num_held - 100


@pytest.mark.bypass
@pytest.mark.parametrize(
    ("change", "records", "why"),
    [
        (hotfix(LARGE_ALWAYS, max_actions_per_day=150), RECORDS, "up to 160 actions a day"),
        (hotfix(RAISED), RECORDS[:50], "50 logged decisions"),
        (hotfix(Move(label="spam", threshold=0.1)), RECORDS, "names \\['spam'\\]"),
    ],
)
def test_what_was_not_shown_to_be_bounded_is_not_sealed(
    tmp_path: Path, change: Hotfix, records: list[Record], why: str
) -> None:
    with pytest.raises(HotfixRefused, match=why):
        seal_hotfix(change, records, tmp_path, cuts=CUTS, policy=POLICY, started_by="ada")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"moves": []}, "moves is empty"),
        ({"reason": " "}, "reason is ' '"),
        ({"max_actions_per_day": -1}, "must be at least 0"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        hotfix(RAISED, **wrong)


@pytest.fixture
def policy(office: Office, release: Bundle) -> Bundle:
    sealed = office.seal_policy()
    office.approve(release, sealed)
    deploy(office.ledger, office.people, release, sealed, by="tom")
    return sealed


@pytest.fixture
def sealed(office: Office, release: Bundle, policy: Bundle) -> Bundle:
    change = hotfix(RAISED, release=release.digest, policy=policy.digest)
    decided = [msgspec.structs.replace(one, release=release.digest) for one in RECORDS]
    return seal_hotfix(change, decided, office.shelves.hotfixes, cuts=CUTS, policy=POLICY, started_by="ada")[0]


def test_one_signature_serves_it_for_a_day_and_then_the_release_is_as_before(
    office: Office, release: Bundle, policy: Bundle, sealed: Bundle
) -> None:
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])
    deploy(office.ledger, office.people, release, policy, by="ada", hotfix=sealed)
    since_us = office.ledger.entries()[-1].at_us

    found = [
        servable(office.ledger, office.people, office.shelves, "payment_fraud", now_us=since_us + after)
        for after in (0, DAY_US - 10**7, DAY_US + 1)
    ]

    assert [one.hotfix if one else None for one in found] == [sealed.digest, sealed.digest, ""]
    assert {one.release for one in found if one} == {release.digest}


def test_a_second_person_lets_it_stay(office: Office, sealed: Bundle) -> None:
    for name in ("ada", "bob"):
        sign(office.ledger, office.people, sealed, signer=office.signers[name])

    later = status(office.ledger, office.people, sealed, now_us=office.ledger.entries()[-1].at_us + 30 * DAY_US)

    assert later.state == "approved"


@pytest.mark.bypass
def test_signing_again_does_not_prolong_it(office: Office, sealed: Bundle) -> None:
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])
    signed = office.ledger.entries()[-1]
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])
    office.ledger.append("approved", signed.body, at_us=signed.at_us + DAY_US)

    found = status(office.ledger, office.people, sealed, now_us=signed.at_us + DAY_US + 10**6)

    assert found.state == "expired"
    assert "nobody signed it as policy within a day" in found.reason


@pytest.mark.bypass
def test_sealing_it_again_does_not_prolong_it(
    office: Office, release: Bundle, policy: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided = [msgspec.structs.replace(one, release=release.digest) for one in RECORDS]
    states = []
    for day in range(9):
        change = hotfix(RAISED, release=release.digest, policy=policy.digest, reason=f"night {day}")
        again = seal_hotfix(change, decided, office.shelves.hotfixes, cuts=CUTS, policy=POLICY, started_by="ada")[0]
        states.append(sign(office.ledger, office.people, again, signer=office.signers["ada"]).state)
        advance(monkeypatch, days=1)

    assert states == ["approved", *["expired"] * 6, "approved", "expired"]
    assert sign(office.ledger, office.people, again, signer=office.signers["bob"]).state == "approved"


@pytest.mark.bypass
def test_two_people_of_one_role_do_not_let_it_stay(office: Office, sealed: Bundle) -> None:
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])

    with pytest.raises(SigningRefused, match="not waited for"):
        sign(office.ledger, office.people, sealed, signer=office.signers["eve"], role="ml")


@pytest.mark.bypass
def test_an_unsigned_hotfix_is_refused_and_kept(
    office: Office, release: Bundle, policy: Bundle, sealed: Bundle
) -> None:
    with pytest.raises(NotApproved, match="waiting"):
        deploy(office.ledger, office.people, release, policy, by="ada", hotfix=sealed)

    last = deployed(office.ledger, "payment_fraud")
    assert last is not None
    assert last.hotfix == ""
    assert any(e.kind == "refused" and e.body["digest"] == sealed.digest for e in office.ledger.entries())


@pytest.mark.bypass
def test_a_hotfix_of_another_release_is_refused_and_kept(office: Office, policy: Bundle, sealed: Bundle) -> None:
    other = office.seal(b"other weights")
    office.approve(other)
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])

    with pytest.raises(HotfixRefused, match="another release"):
        deploy(office.ledger, office.people, other, policy, by="ada", hotfix=sealed)

    assert any("another release" in str(e.body.get("reason")) for e in office.ledger.entries() if e.kind == "refused")


@pytest.mark.bypass
@pytest.mark.parametrize("names", [["hotfix.json"], ["hotfix.json", "backtest.json", "card.md", "model.safetensors"]])
def test_a_hotfix_without_its_backtest_or_with_a_model_is_refused(
    office: Office, release: Bundle, policy: Bundle, sealed: Bundle, names: list[str]
) -> None:
    forged = office.root / "forged"
    forged.mkdir()
    for name in names:
        source = (sealed if name in sealed.files else release).path / name
        (forged / name).write_bytes(source.read_bytes())
    facts = {"started_by": "ada", "persons": []}
    bundle = seal(forged, office.shelves.hotfixes, kind="hotfix", name="payment_fraud", facts=facts)
    sign(office.ledger, office.people, bundle, signer=office.signers["ada"])

    with pytest.raises(HotfixRefused, match="a hotfix holds"):
        deploy(office.ledger, office.people, release, policy, by="ada", hotfix=bundle)


@pytest.mark.bypass
def test_a_release_dressed_as_a_hotfix_is_not_served_with_one_signature(
    office: Office, release: Bundle, policy: Bundle
) -> None:
    """The night's single signature must not let a model in."""
    dressed = seal(release.path, office.shelves.releases, kind="hotfix", name="payment_fraud", facts=release.facts)
    sign(office.ledger, office.people, dressed, signer=office.signers["ada"])

    with pytest.raises(NotApproved, match="is no release"):
        deploy(office.ledger, office.people, dressed, policy, by="ada")
    body = {"detector": "payment_fraud", "digest": dressed.digest, "policy": policy.digest, "by": "x", "lease": 0}
    office.ledger.append("deployed", body)
    now = servable(office.ledger, office.people, office.shelves, "payment_fraud")
    source = LedgerSource(office.root, lambda _: None)  # type: ignore[arg-type,return-value]
    (office.root / "people.yaml").write_text(office.people.model_dump_json())

    assert now is not None
    assert now.release == release.digest
    with pytest.raises(NotApproved, match="is no release"):
        source.require_servable(source.wanted()["payment_fraud"][0])


@pytest.mark.bypass
def test_a_changed_backtest_is_refused(office: Office, sealed: Bundle) -> None:
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])
    path = sealed.path / "backtest.json"
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_harder": 0}))

    with pytest.raises(BundleAltered, match=r"backtest\.json changed"):
        require_servable(office.ledger, office.people, sealed.path)


def test_a_rollback_takes_the_hotfix_off(office: Office, release: Bundle, policy: Bundle, sealed: Bundle) -> None:
    sign(office.ledger, office.people, sealed, signer=office.signers["ada"])
    deploy(office.ledger, office.people, release, policy, by="ada", hotfix=sealed)

    back = rollback(office.ledger, office.people, office.shelves, "payment_fraud", by="ada")

    assert (back.release, back.hotfix) == (release.digest, "")


def test_what_was_sealed_reads_back(release: Bundle, policy: Bundle, sealed: Bundle) -> None:
    found = read_hotfix(sealed, release=release.digest, policy=policy.digest)

    assert found.moves == [RAISED]
    assert "| hold | 100 | 20 |" in (sealed.path / "card.md").read_text()
    assert found.max_actions_per_day == 1000


def test_a_backtest_counts_neither_what_shadows_decided_nor_what_other_releases_did() -> None:
    others = [msgspec.structs.replace(one, role="challenger", release="shadow") for one in RECORDS]
    earlier = [msgspec.structs.replace(one, release="before") for one in RECORDS]
    same_as_shadow = [msgspec.structs.replace(one, role="challenger") for one in RECORDS]

    found = backtest(hotfix(RAISED), [*RECORDS, *others, *earlier, *same_as_shadow], cuts=CUTS, policy=POLICY)

    assert found == backtest(hotfix(RAISED), RECORDS, cuts=CUTS, policy=POLICY)
