import subprocess
import sys
from pathlib import Path

import pytest

from serving.approval import NotApproved, require_servable, revoke, sign, status
from serving.bundle import Bundle, seal
from serving.deployment import deploy, deploying, rollback, servable
from serving.keys import create_key
from serving.people import People, Person, load_people, propose
from serving.source import LedgerSource
from tests.serving.trust.conftest import Office, advance

DAY_US = 86_400_000_000


def refusals(office: Office) -> list[str]:
    return [e.body["reason"] for e in office.ledger.entries() if e.kind == "refused"]


def test_a_release_signed_by_both_roles_is_servable(office: Office, release: Bundle) -> None:
    office.approve(release)

    assert require_servable(office.ledger, office.people, release.path) == release


def test_signing_again_renews_an_approval_before_it_expires(
    office: Office, release: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.approve(release, release)  # twice on one day is once
    advance(monkeypatch, days=80)
    office.approve(release, release)

    assert [e.kind for e in office.ledger.entries()].count("approved") == 4
    advance(monkeypatch, days=89)
    assert require_servable(office.ledger, office.people, release.path) == release
    advance(monkeypatch, days=1)
    with pytest.raises(NotApproved, match="expired"):
        require_servable(office.ledger, office.people, release.path)


def test_who_has_two_roles_renews_in_the_one_signed_in(
    office: Office, release: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(office.ledger, office.people, release, signer=office.signers["eve"], role="ml")

    advance(monkeypatch, days=2)
    sign(office.ledger, office.people, release, signer=office.signers["eve"], role="policy")
    found = sign(office.ledger, office.people, release, signer=office.signers["eve"])

    assert (found.state, found.waiting_for) == ("waiting", ("policy",))
    assert [e.kind for e in office.ledger.entries()].count("approved") == 2


def test_polling_an_unsigned_release_records_one_refusal(office: Office, release: Bundle) -> None:
    for _ in range(5):
        with pytest.raises(NotApproved):
            require_servable(office.ledger, office.people, release.path)

    assert len(refusals(office)) == 1


def test_a_change_of_people_counts_from_the_second_signature(office: Office) -> None:
    public = create_key(office.root / "zoe.pem", None)
    file = People(people=[*office.people.people, Person(name="zoe", roles=["policy"], public_key=public)])

    assert not propose(office.ledger, file, signer=office.signers["ada"])
    assert not propose(office.ledger, file, signer=office.signers["ada"])
    assert propose(office.ledger, file, signer=office.signers["bob"])


def test_a_deployment_whose_process_died_blocks_nobody(office: Office, release: Bundle) -> None:
    policy = office.seal_policy()
    office.approve(release, policy)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    with deploying(office.ledger, office.people, release, policy, by="ada"):
        lease = {**office.ledger.entries()[-1].body, "pid": int(gone.stdout)}
    office.ledger.append("deploying", lease)

    assert deploy(office.ledger, office.people, release, policy, by="bob").by == "bob"


def test_a_revoked_release_gives_way_to_the_one_before(office: Office, release: Bundle) -> None:
    newer, policy = office.seal(b"newer"), office.seal_policy()
    office.approve(release, newer, policy)
    for bundle in (release, newer):
        deploy(office.ledger, office.people, bundle, policy, by="ada")
    revoke(office.ledger, office.people, newer, signer=office.signers["bob"], reason="wrong")

    found = servable(office.ledger, office.people, office.shelves, "payment_fraud")

    assert found is not None
    assert found.release == release.digest


def test_a_rollback_deploys_the_release_before(office: Office, release: Bundle) -> None:
    newer, policy = office.seal(b"newer"), office.seal_policy()
    office.approve(release, newer, policy)
    for bundle in (release, newer):
        deploy(office.ledger, office.people, bundle, policy, by="ada")

    back = rollback(office.ledger, office.people, office.shelves, "payment_fraud", by="bob")

    assert (back.release, back.by) == (release.digest, "bob")


def test_what_people_went_back_from_comes_back_only_when_deployed_again(office: Office, release: Bundle) -> None:
    newer, newest, policy = office.seal(b"newer"), office.seal(b"newest"), office.seal_policy()
    office.approve(release, newer, newest, policy)
    for bundle in (release, newer, newest):
        deploy(office.ledger, office.people, bundle, policy, by="ada")
    where = (office.ledger, office.people, office.shelves, "payment_fraud")
    (office.root / "people.yaml").write_text(office.people.model_dump_json())
    source = LedgerSource(office.root, lambda _: None)  # type: ignore[arg-type,return-value]

    assert [rollback(*where, by="bob").release for _ in range(2)] == [newer.digest, release.digest]
    revoke(office.ledger, office.people, release, signer=office.signers["bob"], reason="wrong")
    assert servable(*where) is None
    assert {d.release for d in source.wanted()["payment_fraud"]} == {release.digest}
    again = deploy(office.ledger, office.people, newest, policy, by="ada")
    assert servable(*where) == again


def test_a_wrong_line_of_the_people_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text("people:\n- {name: ada, roles: [ml], public_key: 'ed25519:AAAA'}\n")

    with pytest.raises(ValueError, match=r"people\.yaml:2: people\.0: .*public_key is 'ed25519:AAAA'.*32 bytes"):
        load_people(file)


def test_sealing_the_same_run_again_gives_the_same_digest(office: Office, release: Bundle) -> None:
    folder = office.root / "copy"

    assert office.seal() == release
    assert (
        seal(release.path, folder, kind="release", name="payment_fraud", facts=release.facts).digest == release.digest
    )


@pytest.mark.bypass
def test_a_bundle_whose_bytes_changed_can_still_be_revoked(office: Office, release: Bundle) -> None:
    office.approve(release)
    card = release.path / "card.md"
    sealed = card.read_bytes()
    card.chmod(0o644)
    card.write_bytes(sealed + b"altered")

    revoke(office.ledger, office.people, release, signer=office.signers["ada"], reason="somebody changed it")
    card.write_bytes(sealed)

    assert status(office.ledger, office.people, release).state == "revoked"
