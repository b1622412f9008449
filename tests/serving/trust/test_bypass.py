"""Attempts to serve what nobody proved or signed: each is refused, and each refusal is kept."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from serving import deployment, evidence_check
from serving.approval import NotApproved, SigningRefused, reject, require_servable, revoke, sign, status
from serving.bundle import Bundle, open_verified, verify
from serving.canonical import canonical, digest_of
from serving.deployment import DeploymentRefused, deploy, deployed, deploying, rollback, servable
from serving.keys import create_key, load_key
from serving.ledger import Entry, LedgerAltered
from serving.people import People, Person, propose
from serving.release import GateNotPassed, read_policy, seal_release
from serving.sealed_files import BundleAltered
from serving.statement import Statement, envelop
from tests.serving.trust.conftest import Office

pytestmark = pytest.mark.bypass

DAY_US = 86_400_000_000


def refusals(office: Office) -> list[str]:
    return [e.body["reason"] for e in office.ledger.entries() if e.kind == "refused"]


def rewrite(bundle: Bundle, name: str, content: bytes) -> None:
    (bundle.path / name).chmod(0o644)
    (bundle.path / name).write_bytes(content)


def lines(office: Office) -> list[bytes]:
    return office.ledger.path.read_bytes().splitlines(keepends=True)


def test_an_unsigned_release_is_refused(office: Office, release: Bundle) -> None:
    with pytest.raises(NotApproved, match="waiting for ml and policy"):
        require_servable(office.ledger, office.people, release.path)

    assert refusals(office) == ["waiting: waiting for ml and policy"]


def test_a_half_signed_release_is_refused(office: Office, release: Bundle) -> None:
    sign(office.ledger, office.people, release, signer=office.signers["ada"])

    with pytest.raises(NotApproved, match="waiting for policy"):
        require_servable(office.ledger, office.people, release.path)
    assert refusals(office)


def test_who_started_the_run_cannot_approve_it(office: Office, release: Bundle) -> None:
    with pytest.raises(SigningRefused, match="started the run"):
        sign(office.ledger, office.people, release, signer=office.signers["tom"])

    assert "tom as ml: started the run" in refusals(office)[0]


def test_who_is_named_in_the_lineage_cannot_approve_it(office: Office) -> None:
    release = seal_release(office.run_dir, office.shelves.releases, lineage={"started_by": "x", "persons": [" Ada"]})

    with pytest.raises(SigningRefused, match="lineage"):
        sign(office.ledger, office.people, release, signer=office.signers["ada"])


def test_one_person_with_two_roles_counts_once(office: Office, release: Bundle) -> None:
    for role in ("ml", "policy"):
        approval = sign(office.ledger, office.people, release, signer=office.signers["eve"], role=role)

    assert (approval.state, approval.waiting_for) == ("waiting", ("policy",))


def test_nobody_signs_in_a_role_of_others(office: Office, release: Bundle) -> None:
    with pytest.raises(SigningRefused, match="has the roles"):
        sign(office.ledger, office.people, release, signer=office.signers["ada"], role="policy")


@pytest.mark.parametrize("name", ["model.safetensors", "thresholds.json", "encoder.json", "spec.json", "verdict.json"])
def test_one_changed_byte_is_refused_by_the_name_of_its_file(office: Office, release: Bundle, name: str) -> None:
    office.approve(release)
    content = (release.path / name).read_bytes()
    rewrite(release, name, content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(BundleAltered, match=f"{name} changed"):
        require_servable(office.ledger, office.people, release.path)
    assert name in refusals(office)[0]


def test_a_changed_policy_is_refused(office: Office) -> None:
    policy = office.seal_policy()
    office.approve(policy)
    rewrite(policy, "policy.json", (policy.path / "policy.json").read_bytes().replace(b"hold", b"log"))

    with pytest.raises(BundleAltered, match=r"policy\.json changed"):
        require_servable(office.ledger, office.people, policy.path)
    with pytest.raises(BundleAltered, match=r"policy\.json changed"):
        read_policy(policy)


def test_an_edited_manifest_is_refused(office: Office, release: Bundle) -> None:
    office.approve(release)
    rewrite(release, "manifest.json", release.manifest.replace(b'"tom"', b'"zoe"'))

    with pytest.raises(BundleAltered, match=r"manifest\.json changed"):
        require_servable(office.ledger, office.people, release.path)


def test_a_missing_file_is_refused(office: Office, release: Bundle) -> None:
    (release.path / "thresholds.json").unlink()

    with pytest.raises(BundleAltered, match=r"thresholds\.json is missing"):
        require_servable(office.ledger, office.people, release.path)


def test_an_added_file_is_refused(office: Office, release: Bundle) -> None:
    (release.path / "extra.json").write_text("{}")

    with pytest.raises(BundleAltered, match=r"extra\.json was added"):
        require_servable(office.ledger, office.people, release.path)


def test_a_symbolic_link_to_the_same_bytes_is_refused(office: Office, release: Bundle) -> None:
    (release.path / "encoder.json").rename(office.root / "elsewhere.json")
    (release.path / "encoder.json").symlink_to(office.root / "elsewhere.json")

    with pytest.raises(BundleAltered, match=r"encoder\.json is a link"):
        require_servable(office.ledger, office.people, release.path)


def test_a_fifo_is_refused(office: Office, release: Bundle) -> None:
    os.mkfifo(release.path / "wait.json")

    with pytest.raises(BundleAltered, match="special file"):
        require_servable(office.ledger, office.people, release.path)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd.json", "a/../../b.json", "a\\b.json"])
def test_a_manifest_that_names_a_file_outside_is_refused(tmp_path: Path, name: str) -> None:
    manifest = canonical({"kind": "release", "name": "x", "facts": {}, "files": {name: {"sha256": "0", "size": 1}}})
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest)

    with pytest.raises(BundleAltered, match="does not stay inside"):
        verify(folder, digest_of(json.loads(manifest)))


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.bin", "model.joblib", "model.safetensors"])
def test_a_pickle_is_not_sealed_under_any_name(office: Office, name: str) -> None:
    (office.run_dir / "bundle" / name).write_bytes(pickle.dumps({"weights": [1.0] * 20}))

    with pytest.raises(ValueError, match="could run code"):
        seal_release(office.run_dir, office.shelves.releases, lineage={"started_by": "tom"})


def test_a_failed_gate_cannot_be_sealed(office: Office) -> None:
    verdict = {"passed": False, "reason": "recall fell", "criteria": [{"name": "recall", "passed": False}]}
    (office.run_dir / "verdict.json").write_text(json.dumps(verdict))

    with pytest.raises(GateNotPassed, match="recall fell"):
        office.seal()


def test_a_forged_verdict_over_failed_criteria_cannot_be_sealed(office: Office) -> None:
    verdict = {"passed": True, "reason": "fine", "criteria": [{"name": "recall", "passed": False}]}
    (office.run_dir / "verdict.json").write_text(json.dumps(verdict))

    with pytest.raises(GateNotPassed, match="recall"):
        office.seal()


def test_a_signature_of_another_digest_is_no_signature(office: Office, release: Bundle) -> None:
    other = office.seal(b"other weights")
    office.approve(release)
    for entry in office.ledger.entries():
        if entry.kind == "approved":
            office.ledger.append("approved", {**entry.body, "digest": other.digest})

    assert status(office.ledger, office.people, other).state == "waiting"


def test_a_signature_of_another_detector_is_no_signature(office: Office, release: Bundle) -> None:
    office.approve(release)
    twin = Bundle("release", "other", release.digest, release.path, release.facts, release.files, release.manifest)

    assert status(office.ledger, office.people, twin).state == "waiting"


def test_a_policy_cannot_be_deployed_as_a_release(office: Office) -> None:
    policy = office.seal_policy()
    office.approve(policy)

    with pytest.raises(NotApproved, match="is no release"):
        deploy(office.ledger, office.people, policy, policy, by="tom")


def test_a_forged_envelope_is_no_signature(office: Office, release: Bundle) -> None:
    sign(office.ledger, office.people, release, signer=office.signers["ada"])
    body = json.loads(canonical(office.ledger.entries()[-1].body))
    body["envelope"]["payload"] = body["envelope"]["payload"][:-8] + "AAAAAAA="
    office.ledger.append("approved", {**body, "person": "bob", "role": "policy"})

    assert status(office.ledger, office.people, release).waiting_for == ("policy",)


def test_signatures_replayed_after_a_revocation_change_nothing(office: Office, release: Bundle) -> None:
    office.approve(release)
    approvals = [e for e in office.ledger.entries() if e.kind == "approved"]
    revoke(office.ledger, office.people, release, signer=office.signers["bob"], reason="blocks pharmacies")
    for entry in approvals:
        office.ledger.append("approved", entry.body)

    with pytest.raises(NotApproved, match="revoked by bob: blocks pharmacies"):
        require_servable(office.ledger, office.people, release.path)


def test_an_approval_expires_and_its_replay_is_as_old(office: Office, release: Bundle) -> None:
    office.approve(release)
    for entry in [e for e in office.ledger.entries() if e.kind == "approved"]:
        office.ledger.append("approved", entry.body, at_us=entry.at_us + 80 * DAY_US)
    later = office.ledger.entries()[0].at_us + 91 * DAY_US

    with pytest.raises(NotApproved, match="expired"):
        require_servable(office.ledger, office.people, release.path, now_us=later)


def test_a_rejected_release_cannot_be_signed_any_more(office: Office, release: Bundle) -> None:
    reject(office.ledger, office.people, release, signer=office.signers["bob"], reason="too many benign")

    with pytest.raises(SigningRefused, match="rejected by bob"):
        sign(office.ledger, office.people, release, signer=office.signers["ada"])


def test_a_signer_removed_from_the_file_counts_no_more(office: Office, release: Bundle) -> None:
    office.approve(release)
    without_bob = office.people.model_copy(update={"people": [p for p in office.people.people if p.name != "bob"]})

    with pytest.raises(NotApproved, match="not the reviewed"):
        require_servable(office.ledger, without_bob, release.path)


def test_a_key_slipped_into_the_file_signs_nothing(office: Office, release: Bundle) -> None:
    public = create_key(office.root / "mallory.pem", None)
    slipped = Person(name="mallory", roles=["policy"], public_key=public)
    file = office.people.model_copy(update={"people": [*office.people.people, slipped]})

    with pytest.raises(SigningRefused, match="not the reviewed"):
        sign(office.ledger, file, release, signer=load_key(office.root / "mallory.pem", None))
    assert refusals(office)


def test_a_role_struck_from_the_file_is_still_required(office: Office, release: Bundle) -> None:
    file = office.people.model_copy(update={"required_roles": ["ml"]})

    approval = sign(office.ledger, file, release, signer=office.signers["ada"])

    assert approval.waiting_for == ("policy",)


def test_an_old_version_of_people_cannot_be_replayed(office: Office, release: Bundle) -> None:
    public = create_key(office.root / "zoe.pem", None)
    wider = People(people=[*office.people.people, Person(name="zoe", roles=["policy"], public_key=public)])
    for file in (wider, office.people):
        for name in ("ada", "bob"):
            propose(office.ledger, file, signer=office.signers[name])
    for entry in [e for e in office.ledger.entries() if e.kind == "people" and e.body["digest"] == wider.digest]:
        office.ledger.append("people", entry.body)

    with pytest.raises(SigningRefused):
        sign(office.ledger, wider, release, signer=load_key(office.root / "zoe.pem", None))


def test_a_revocation_stays_when_its_signer_leaves(office: Office, release: Bundle) -> None:
    office.approve(release)
    revoke(office.ledger, office.people, release, signer=office.signers["eve"], reason="wrong")
    without_eve = People(people=[p for p in office.people.people if p.name != "eve"])
    for name in ("ada", "bob"):
        propose(office.ledger, without_eve, signer=office.signers[name])

    assert status(office.ledger, without_eve, release).state == "revoked"


def test_a_cut_tail_is_found_by_the_remembered_head(office: Office, release: Bundle) -> None:
    office.approve(release)
    revoke(office.ledger, office.people, release, signer=office.signers["bob"], reason="wrong")
    office.ledger.path.write_bytes(b"".join(lines(office)[:-1]))

    with pytest.raises(LedgerAltered, match="entry 4 is missing"):
        require_servable(office.reopen(), office.people, release.path)


def test_a_cut_tail_with_its_head_forged_is_found_by_the_witness(office: Office, release: Bundle) -> None:
    office.approve(release)
    revoke(office.ledger, office.people, release, signer=office.signers["bob"], reason="wrong")
    kept = lines(office)[:-1]
    last = json.loads(kept[-1])
    office.ledger.path.write_bytes(b"".join(kept))
    office.ledger.path.with_suffix(".head").write_bytes(canonical({"number": last["number"], "hash": last["hash"]}))

    with pytest.raises(LedgerAltered, match="entry 4 is missing"):
        office.reopen().verify()


def test_a_removed_head_is_found(office: Office, release: Bundle) -> None:
    office.approve(release)
    office.ledger.path.with_suffix(".head").unlink()

    with pytest.raises(LedgerAltered, match="head is missing"):
        office.reopen().verify()


@pytest.mark.parametrize("how", ["edited", "deleted", "reordered"])
def test_a_rewritten_past_is_found_by_its_first_entry(office: Office, release: Bundle, how: str) -> None:
    office.approve(release)
    old = lines(office)
    new = {
        "edited": [old[0], old[1].replace(b'"ml"', b'"ux"'), *old[2:]],
        "deleted": [old[0], *old[2:]],
        "reordered": [old[0], old[2], old[1]],
    }[how]
    office.ledger.path.write_bytes(b"".join(new))

    with pytest.raises(LedgerAltered, match="entry 2"):
        office.reopen().verify()


def test_a_past_rewritten_with_matching_hashes_voids_the_signatures_after_it(office: Office, release: Bundle) -> None:
    office.approve(release)
    entries = office.ledger.entries()
    forged = [Entry.after(office.ledger.head.__class__(), "people_begun", entries[0].body, at_us=1)]
    for entry in entries[1:]:
        forged.append(Entry.after(forged[-1].head, entry.kind, entry.body, at_us=entry.at_us))
    office.ledger.path.write_bytes(b"".join(e.line for e in forged))
    for head in (office.ledger.path.with_suffix(".head"), office.root / "witness" / "ledger.head"):
        head.write_bytes(canonical(vars(forged[-1].head)))

    assert status(office.reopen(), office.people, release).state == "waiting"


def test_what_was_hashed_is_what_is_loaded_although_the_folder_is_swapped(office: Office, release: Bundle) -> None:
    office.approve(release)
    sealed = (release.path / "model.safetensors").read_bytes()
    require_servable(office.ledger, office.people, release.path)
    loaded = open_verified(release.path, release.digest, private=office.root / "private")
    rewrite(release, "model.safetensors", b"swapped")

    assert (loaded.path / "model.safetensors").read_bytes() == sealed
    with pytest.raises(BundleAltered, match=r"could run code|changed"):
        verify(release.path, release.digest)


def test_a_swap_while_it_is_opened_never_yields_other_bytes(office: Office, release: Bundle) -> None:
    sealed = (release.path / "model.safetensors").read_bytes()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            rewrite(release, "model.safetensors", sealed[:-1] + b"X")
            rewrite(release, "model.safetensors", sealed)

    swapper = threading.Thread(target=swap)
    swapper.start()
    for i in range(50):
        try:
            loaded = open_verified(release.path, release.digest, private=office.root / f"private{i}")
        except BundleAltered:
            continue
        assert (loaded.path / "model.safetensors").read_bytes() == sealed
    stop.set()
    swapper.join()


def test_an_alias_or_a_tag_cannot_be_read_let_alone_trusted() -> None:
    code = "import sys, serving.deployment, serving.release; print(sorted({'mlflow', 'dagster'} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_deployment_alone_deploys_nothing_unsigned(office: Office, release: Bundle) -> None:
    policy = office.seal_policy()
    office.approve(policy)

    with pytest.raises(NotApproved):
        deploy(office.ledger, office.people, release, policy, by="operator")

    assert deployed(office.ledger, "payment_fraud") is None
    assert refusals(office)


def test_a_deployed_entry_written_by_hand_serves_nothing_unsigned(office: Office, release: Bundle) -> None:
    policy = office.seal_policy()
    body = {"detector": "payment_fraud", "digest": release.digest, "policy": policy.digest, "by": "x", "lease": 0}
    office.ledger.append("deployed", body)

    assert servable(office.ledger, office.people, office.shelves, "payment_fraud") is None


def test_a_second_deployment_waits_for_the_first(office: Office, release: Bundle) -> None:
    policy = office.seal_policy()
    office.approve(release, policy)

    with (
        deploying(office.ledger, office.people, release, policy, by="ada"),
        pytest.raises(DeploymentRefused, match="by ada runs"),
    ):
        deploy(office.ledger, office.people, release, policy, by="bob")

    assert [d.by for d in deployment.deployments(office.ledger, "payment_fraud")] == ["ada"]
    assert refusals(office)


def test_a_rollback_never_lands_on_a_revoked_release(office: Office, release: Bundle) -> None:
    newer, policy = office.seal(b"newer"), office.seal_policy()
    office.approve(release, newer, policy)
    for bundle in (release, newer):
        deploy(office.ledger, office.people, bundle, policy, by="ada")
    revoke(office.ledger, office.people, release, signer=office.signers["bob"], reason="wrong")

    with pytest.raises(DeploymentRefused, match="no earlier deployment"):
        rollback(office.ledger, office.people, office.shelves, "payment_fraud", by="ada")


def test_one_key_under_two_names_is_refused(office: Office) -> None:
    ada = office.people.people[0]

    with pytest.raises(ValueError, match="twice"):
        People(people=[ada, ada.model_copy(update={"name": "ada2"}), *office.people.people[1:]])


def test_a_wrong_passphrase_opens_no_key(office: Office) -> None:
    with pytest.raises(ValueError, match="wrong passphrase"):
        load_key(office.root / "keys" / "ada.pem", "guess")


def test_a_role_that_its_signer_lacks_counts_for_nobody_who_reads_the_evidence(office: Office, release: Bundle) -> None:
    """A third party's checker must not take a signature that serving would not."""
    sign(office.ledger, office.people, release, signer=office.signers["eve"], role="policy")
    seen = office.ledger.head
    said = {"kind": "approved", "subject": release.subject, "digest": release.digest, "person": "bob", "role": "ml"}
    statement = Statement(**said, at_us=time.time_ns() // 1000, seen_number=seen.number, seen_hash=seen.hash)
    body = {**said, "reason": "", "envelope": envelop(statement, office.signers["bob"])}
    office.ledger.append("approved", {name: body[name] for name in body if name != "kind"})

    entries = [json.loads(line) for line in lines(office)]
    claim = {"subject": release.subject, "digest": release.digest, "state": "approved"}

    assert status(office.ledger, office.people, release).waiting_for == ("ml",)
    with pytest.raises(ValueError, match=r"lacks a signature of \['ml'\]"):
        list(evidence_check._approvals(entries, claim, dict(release.facts), at_us=time.time_ns() // 1000))


@pytest.mark.parametrize("days", [89, 91])
def test_an_old_signature_counts_for_the_reader_of_the_evidence_as_long_as_for_the_service(
    office: Office, release: Bundle, days: int
) -> None:
    """An approval that ran out must not look like one in force."""
    office.approve(release)
    entries = [json.loads(line) for line in lines(office)]
    then_us = time.time_ns() // 1000 + days * DAY_US
    claim = {"subject": release.subject, "digest": release.digest, "state": "approved"}

    is_served = status(office.ledger, office.people, release, now_us=then_us).state == "approved"
    try:
        list(evidence_check._approvals(entries, claim, dict(release.facts), at_us=then_us))
        is_confirmed = True
    except ValueError:
        is_confirmed = False

    assert is_served == is_confirmed == (days < 90)
