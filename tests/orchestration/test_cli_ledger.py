"""People change their file by two signatures, the ledger says what was altered, and a witness notices a cut tail."""

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from orchestration.approvals import Approvals
from orchestration.cli import app
from orchestration.settings import Settings
from serving.keys import create_key


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Approvals:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEWS_PASSPHRASE", raising=False)
    desk = Approvals(Settings.from_environment())
    desk.introduce({"ada": "ml", "grace": "policy"})
    return desk


def mews(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=answers)


def add(desk: Approvals, name: str, role: str, public_key: str) -> None:
    content = yaml.safe_load(desk.settings.people.read_text())
    content["people"].append({"name": name, "roles": [role], "public_key": public_key})
    desk.settings.people.write_text(yaml.safe_dump(content))


def test_a_new_person_makes_a_key_and_two_people_let_them_in(desk: Approvals) -> None:
    made = mews("people", "key", "zoe", answers="open sesame\nopen sesame\n")
    line = next(line for line in made.stdout.splitlines() if line.startswith("- {"))
    add(desk, "zoe", "policy", yaml.safe_load(line)[0]["public_key"])

    first = mews("people", "propose", "--as", "ada", answers="y\n")
    second = mews("people", "propose", "--as", "grace", answers="y\n")

    assert "adds zoe as policy" in first.stdout
    assert "waits for a second person" in first.stdout
    assert "is in force" in second.stdout
    assert "zoe: policy (ed25519)" in mews("people", "show").stdout


@pytest.mark.parametrize("name", ["../../evil", "no/evil", ".", ""])
def test_a_name_that_leads_out_of_the_home_gets_no_key(desk: Approvals, name: str) -> None:
    before = set(desk.settings.home.parent.rglob("*.pem"))

    made = mews("people", "key", name, answers="open sesame\nopen sesame\n")

    assert made.exit_code == 1
    assert f"name is {name!r}; it must match" in made.stderr
    assert set(desk.settings.home.parent.rglob("*.pem")) == before


def test_a_person_who_is_not_in_force_lets_nobody_in(desk: Approvals) -> None:
    add(desk, "zoe", "policy", create_key(desk.key_of("zoe"), None))

    done = mews("people", "propose", "--as", "zoe", "--yes")

    assert done.exit_code != 0
    assert "belongs to nobody" in done.stderr
    assert "not reviewed: adds zoe as policy" in mews("people", "show").stdout


def test_a_key_in_people_yaml_that_nobody_reviewed_is_named(desk: Approvals) -> None:
    content = yaml.safe_load(desk.settings.people.read_text())
    content["people"][0]["public_key"] = create_key(desk.settings.home / "evil.pem", None)
    desk.settings.people.write_text(yaml.safe_dump(content))

    assert "not reviewed: changes the key of ada" in mews("people", "show").stdout


def test_an_encrypted_key_asks_for_its_passphrase(desk: Approvals) -> None:
    add(desk, "zoe", "policy", create_key(desk.key_of("zoe"), "open sesame"))
    for person in ("ada", "grace"):
        mews("people", "propose", "--as", person, "--yes")

    wrong = mews("people", "propose", "--as", "zoe", "--yes", answers="guess\n")
    right = mews("people", "propose", "--as", "zoe", "--yes", answers="open sesame\n")

    assert "wrong passphrase" in wrong.stderr
    assert right.exit_code == 0


def test_verify_names_the_first_altered_entry(desk: Approvals) -> None:
    desk.ledger.append("note", {"text": "second"})
    desk.ledger.append("note", {"text": "third"})
    whole = mews("ledger", "verify")
    desk.settings.ledger.write_bytes(desk.settings.ledger.read_bytes().replace(b"second", b"Second"))

    altered = mews("ledger", "verify")

    assert "whole: 3 entries" in whole.stdout
    assert altered.exit_code == 1
    assert "entry 2 was altered" in altered.stderr


def cut_tail(desk: Approvals) -> None:
    """As somebody who writes this home would: the last entry and the head beside the ledger."""
    path = desk.settings.ledger
    earlier = path.with_suffix(".head").read_bytes(), path.read_bytes()
    desk.ledger.append("revoked", {"digest": "d"})
    mews("ledger", "witness", str(desk.settings.home.parent / "outside" / "ledger.head"))
    path.with_suffix(".head").write_bytes(earlier[0])
    path.write_bytes(earlier[1])


def test_a_witness_outside_notices_a_cut_tail_and_never_moves_back(desk: Approvals) -> None:
    witness = desk.settings.home.parent / "outside" / "ledger.head"
    cut_tail(desk)
    before = witness.read_bytes()

    alone, with_witness = mews("ledger", "verify"), mews("ledger", "verify", "--witness", str(witness))
    again = mews("ledger", "witness", str(witness))

    assert alone.exit_code == 0
    assert (with_witness.exit_code, again.exit_code) == (1, 1)
    assert "entry 2 is missing" in with_witness.stderr
    assert witness.read_bytes() == before


def test_a_witness_in_a_git_repository_is_a_commit(desk: Approvals, tmp_path: Path) -> None:
    repository = tmp_path / "witness"
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    for name, value in {"user.name": "witness", "user.email": "w@example.com", "core.hooksPath": "/dev/null"}.items():
        subprocess.run(["git", "-C", repository, "config", name, value], check=True)

    for _ in range(2):
        done = mews("ledger", "witness", str(repository / "ledger.head"))
        assert done.exit_code == 0, done.output
    log = subprocess.run(["git", "-C", repository, "log", "--format=%s"], capture_output=True, text=True, check=True)

    assert log.stdout.strip() == f"ledger: entry 1, {desk.ledger.verify().hash}"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real ssh-agent that holds one Ed25519 key; the value is its public half as people.yaml holds it."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    path = tmp_path / "agent.sock"
    server = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    while not path.exists():
        assert server.poll() is None
    subprocess.run(["ssh-add", "-q", key], check=True, env=dict(os.environ))
    blob = key.with_suffix(".pub").read_text().split()[1]
    raw = base64.b64decode(blob)[-32:]
    yield "ed25519:" + base64.b64encode(raw).decode()
    server.terminate()
    server.wait()


def test_a_key_in_an_ssh_agent_signs(desk: Approvals, agent: str) -> None:
    add(desk, "zoe", "policy", agent)
    for person in ("ada", "grace"):
        mews("people", "propose", "--as", person, "--yes")

    done = mews("people", "propose", "--as", "zoe", "--yes")

    assert done.exit_code == 0, done.exception
    assert desk.ledger.entries()[-1].kind == "people"


def test_a_key_that_no_agent_holds_is_said(desk: Approvals, agent: str) -> None:
    desk.key_of("ada").unlink()

    done = mews("people", "propose", "--as", "ada", "--yes")

    assert "no ssh-agent holds this person's key" in done.stderr
