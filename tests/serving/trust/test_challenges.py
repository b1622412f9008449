"""A canary answers under what is deployed, or not at all."""

import pytest

from serving.bundle import Bundle
from serving.challenges import Challenge, challenge, challenges
from serving.deployment import deploy
from tests.serving.trust.conftest import Office


@pytest.fixture
def others(office: Office, release: Bundle) -> list[Bundle]:
    """Two more signed releases beside the one that is served."""
    found, policy = [office.seal(b"one"), office.seal(b"two")], office.seal_policy()
    office.approve(release, policy, *found)
    deploy(office.ledger, office.people, release, policy, by="tom")
    return found


def lasting(office: Office) -> list[Challenge]:
    return [one for found in challenges(office.ledger.entries()).values() for one in found]


def test_a_canary_ends_with_the_next_deployment_of_its_detector_and_a_shadow_goes_on(
    office: Office, release: Bundle, others: list[Bundle]
) -> None:
    policy, stricter = office.seal_policy(), office.seal_policy(version=2)
    office.approve(stricter)
    canary, shadow = (
        challenge(office.ledger, office.people, one, policy, by="tom", share=share)
        for one, share in zip(others, (0.5, 0.0), strict=True)
    )
    office.ledger.append("deployed", {"detector": "content", "digest": "d" * 64, "policy": "e" * 64, "by": "tom"})
    before = lasting(office)

    deploy(office.ledger, office.people, release, stricter, by="tom")

    assert before == [canary, shadow]
    assert lasting(office) == [shadow]


def test_no_canary_begins_while_a_hotfix_is_deployed(office: Office, release: Bundle, others: list[Bundle]) -> None:
    policy = office.seal_policy()
    body = {"detector": release.name, "digest": release.digest, "policy": policy.digest, "by": "tom"}
    office.ledger.append("deployed", body | {"hotfix": "f" * 64})

    with pytest.raises(ValueError, match=r"share is 0\.5; it must be 0 while the hotfix ffffffffffff is deployed"):
        challenge(office.ledger, office.people, others[0], policy, by="tom", share=0.5)
    assert challenge(office.ledger, office.people, others[0], policy, by="tom") in lasting(office)
