"""Evidence answers for a release to somebody who has nothing else, and shows every alteration of itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.bundle import Bundle
from serving.canonical import canonical
from serving.evidence import Pack, write_evidence
from serving.ledger import Entry, Head
from serving.release import seal_release
from serving.sealed_files import BundleAltered
from tests.serving.service.conftest import Team


@pytest.fixture
def first(team: Team, runs: dict[str, Path], policy: Bundle) -> Bundle:
    """A deployed release with the card and the plots that its evaluation made."""
    release = seal_release(runs["content"], team.shelves.releases, lineage={"started_by": "tom"})
    team.sign(release)
    team.deploy(release, policy)
    return release


@pytest.fixture
def pack(team: Team, first: Bundle, policy: Bundle) -> Pack:
    return write_evidence(team.ledger, team.people, first, policy, target=team.home / "pack")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """As a third party does: in a process that knows neither this folder nor this repository."""
    command = [sys.executable, "-I", folder / "check.py", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_a_third_party_checks_it_with_one_file(team: Team, first: Bundle, pack: Pack) -> None:
    done = check(pack.folder)

    assert done.returncode == 0, done.stdout
    assert f"release/content is {first.digest}" in done.stdout
    assert "ada approved it as ml" in done.stdout
    assert "grace approved it as policy" in done.stdout
    assert team.ledger.head.hash in done.stdout


def test_the_page_tells_use_limits_data_promises_approvals_and_lineage(first: Bundle, pack: Pack) -> None:
    page = pack.page.read_text()

    for words in ("Intended use", "means fraud_spam", "Limits", "benign_fpr ≤ 0.1", "Labels, on the test split"):
        assert words in page
    for words in ("Who may not sign: tom", "ada (ml)", first.digest, "data:image/png;base64,", "feature_service"):
        assert words in page


def test_the_weights_stay_at_home_and_their_digest_goes_along(first: Bundle, pack: Pack) -> None:
    names = {p.name for p in pack.folder.rglob("*")}

    assert "model.safetensors" in first.files
    assert "model.safetensors" not in names
    assert first.files["model.safetensors"]["sha256"] in pack.page.read_text()


def alter_threshold(folder: Path) -> None:
    path = folder / "release" / "thresholds.json"
    path.write_bytes(path.read_bytes() + b" ")


def alter_manifest(folder: Path) -> None:
    path = folder / "release" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"tom"', b'"zoe"'))


def alter_entry(folder: Path) -> None:
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"person":"ada"', b'"person":"eve"', 1))


def cut_tail(folder: Path) -> None:
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def claim_an_approval(folder: Path) -> None:
    """Drop one signature and forge every hash after it: the chain holds, and the claim does not."""
    path, head, kept = folder / "ledger.jsonl", Head(), []
    for line in map(json.loads, path.read_bytes().splitlines()):
        if line["kind"] == "approved" and line["body"]["person"] == "grace":
            continue
        kept.append(Entry.after(head, line["kind"], line["body"], at_us=line["at_us"]))
        head = kept[-1].head
    path.write_bytes(b"".join(entry.line for entry in kept))
    claims = json.loads((folder / "pack.json").read_bytes())
    (folder / "pack.json").write_bytes(canonical({**claims, "head": vars(head)}))


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (alter_threshold, "release/thresholds.json differs"),
        (alter_manifest, "is not what"),
        (alter_entry, "ledger entry 2 was altered"),
        (cut_tail, "does not end at the head"),
        (claim_an_approval, "lacks a signature of"),
    ],
)
def test_an_altered_pack_does_not_hold(pack: Pack, alter: object, why: str) -> None:
    alter(pack.folder)  # type: ignore[operator]

    done = check(pack.folder)

    assert done.returncode == 1
    assert "DOES NOT HOLD" in done.stdout
    assert why in done.stdout


def test_no_evidence_is_written_about_an_altered_release(team: Team, first: Bundle, policy: Bundle) -> None:
    (first.path / "thresholds.json").chmod(0o644)
    (first.path / "thresholds.json").write_text("{}")

    with pytest.raises(BundleAltered):
        write_evidence(team.ledger, team.people, first, policy, target=team.home / "pack")


def test_evidence_is_never_written_over_other_evidence(team: Team, first: Bundle, policy: Bundle, pack: Pack) -> None:
    shutil.rmtree(pack.folder / "policy")

    with pytest.raises(FileExistsError):
        write_evidence(team.ledger, team.people, first, policy, target=pack.folder)
