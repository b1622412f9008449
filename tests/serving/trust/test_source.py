"""What the service follows goes on while a file that it reads is written or wrong."""

from pathlib import Path

import pytest

from serving.approval import revoke
from serving.bundle import Bundle
from serving.deployment import deploy
from serving.follow import Follower
from serving.live import Live
from serving.metrics import Metrics
from serving.people import People
from serving.source import LedgerSource
from tests.serving.trust.conftest import Office


class Unloaded(LedgerSource):
    """Follows the real ledger; the release of these tests holds no model that could be loaded."""

    def load(self, _: object) -> Live:
        return object()  # type: ignore[return-value]


@pytest.fixture
def installed(office: Office, release: Bundle) -> tuple[Follower, dict[str, Live | None]]:
    policy = office.seal_policy()
    office.approve(release, policy)
    deploy(office.ledger, office.people, release, policy, by="tom")
    write(office, office.people.model_dump_json())
    served: dict[str, Live | None] = {}
    follower = Follower(Unloaded(office.root, lambda _: None), served.__setitem__, metrics=Metrics())  # type: ignore[arg-type,return-value]
    follower.poll()
    assert served["payment_fraud"] is not None
    return follower, served


def write(office: Office, content: str) -> None:
    (office.root / "people.yaml").write_text(content)


def test_a_people_file_that_is_half_written_takes_nothing_off(
    office: Office, installed: tuple[Follower, dict[str, Live | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.follow.VERIFY_EVERY_S", 0.0)
    follower, served = installed

    write(office, office.people.model_dump_json()[:40])
    follower.poll()
    during = served["payment_fraud"]
    write(office, office.people.model_dump_json())
    follower.poll()

    assert during is not None
    assert served["payment_fraud"] is during
    assert follower.is_ready


@pytest.mark.parametrize("people", ["people: [\n", "\x00", None])
def test_a_revocation_is_followed_while_the_people_file_cannot_be_read(
    office: Office, installed: tuple[Follower, dict[str, Live | None]], release: Bundle, people: str | None
) -> None:
    follower, served = installed
    revoke(office.ledger, office.people, release, signer=office.signers["ada"], reason="it harms")

    write(office, people) if people else (office.root / "people.yaml").unlink()
    follower.poll()
    during = served["payment_fraud"], failed(follower, "people")
    write(office, office.people.model_dump_json())
    follower.poll()

    assert during == (None, 1)
    assert failed(follower, "people") == 0


def test_somebody_taken_out_of_the_people_file_counts_no_more_at_the_next_look(
    office: Office, installed: tuple[Follower, dict[str, Live | None]]
) -> None:
    follower, served = installed

    write(office, People(people=[p for p in office.people.people if p.name != "ada"]).model_dump_json())
    follower.poll()

    assert served["payment_fraud"] is None
    assert not follower.is_ready


@pytest.mark.parametrize("gone", ["ledger.jsonl", "."])
def test_a_ledger_that_is_gone_is_told_and_no_empty_one(
    office: Office, installed: tuple[Follower, dict[str, Live | None]], gone: str
) -> None:
    follower, _ = installed
    folder = office.ledger.path.parent

    (folder / gone).rename(office.root / "elsewhere")
    follower.poll()
    during = failed(follower, "ledger")
    (office.root / "elsewhere").rename(folder / gone)
    follower.poll()

    assert (during, failed(follower, "ledger")) == (1, 0)


def test_a_home_where_nothing_was_recorded_needs_neither_ledger_nor_people(tmp_path: Path) -> None:
    follower = Follower(Unloaded(tmp_path, lambda _: None), dict[str, Live | None]().__setitem__, metrics=Metrics())  # type: ignore[arg-type,return-value]

    follower.poll()

    assert failed(follower, "ledger") == 0


def failed(follower: Follower, what: str) -> float | None:
    return follower._metrics.registry.get_sample_value("mews_follow_failed", {"detector": what})
