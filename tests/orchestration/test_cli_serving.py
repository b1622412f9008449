"""A signed release begins to challenge, is listed and ends, by the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestration.approvals import Approvals
from orchestration.cli import app
from orchestration.settings import Settings
from serving.bundle import Bundle
from serving.release import seal_policy, seal_release
from tests.serving.trust.conftest import make_run
from training.policy import LabelPolicy, Policy

POLICY = Policy(name="fraud", labels={"fraud": LabelPolicy(definition="A stolen card.")})


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Approvals:
    monkeypatch.setenv("MEWS_HOME", str(tmp_path / "home"))
    desk = Approvals(Settings.from_environment())
    desk.introduce({"ada": "ml", "grace": "policy"})
    return desk


@pytest.fixture
def challenger(desk: Approvals, tmp_path: Path) -> Bundle:
    """A signed release beside the one that is served."""
    policy, releases = seal_policy(POLICY, desk.settings.policies, started_by="tom"), []
    for number in range(2):
        run_dir = make_run(tmp_path / f"run-{number}")
        (run_dir / "card.md").write_text(f"# {number}\n")
        releases.append(seal_release(run_dir, desk.settings.releases, lineage={"started_by": "tom"}))
    for bundle in (policy, *releases):
        for person in ("ada", "grace"):
            desk.sign(bundle, desk.signer(person))
    desk.deploy(releases[0], policy)
    return releases[1]


def mews(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["challenge", *arguments])


@pytest.mark.parametrize("length", [0, 7])
def test_a_digest_that_is_cut_too_short_signs_nothing(desk: Approvals, tmp_path: Path, length: int) -> None:
    release = seal_release(make_run(tmp_path / "run"), desk.settings.releases, lineage={"started_by": "tom"})

    done = CliRunner().invoke(app, ["sign", release.digest[:length], "--as", "ada", "--yes"])

    assert f"digest is {release.digest[:length]!r}; it must be at least 8" in done.stderr
    assert desk.status(release).signed_by == ()
    assert desk.find(release.digest[:8]) == desk.find(release.digest) == release


def test_a_signed_release_challenges_until_somebody_ends_it(challenger: Bundle) -> None:
    begun = mews("begin", challenger.digest[:12], "--share", "0.1")
    listed = mews("list")
    ended = mews("end", challenger.digest[:12], "--reason", "seen enough")

    assert "runs as a canary for 10% of accounts" in begun.output
    assert f"{challenger.digest[:12]} 10% of accounts" in listed.output
    assert ended.exit_code == 0
    assert mews("list").output == ""


def test_what_challenges_nobody_cannot_be_ended(challenger: Bundle) -> None:
    ended = mews("end", challenger.digest[:12], "--reason", "seen enough")

    assert ended.exit_code == 1
    assert "challenges nobody" in ended.stderr
