"""Canaries are followed whatever fails beside them: a full disk, a shadow that does not start."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from serving.approval import revoke
from serving.bundle import Bundle
from serving.challenges import Challenge, challenge
from serving.live import Live
from serving.metrics import Metrics
from serving.moderator import Trial
from serving.source import LedgerSource
from serving.trials import Trials
from tests.serving.trust.conftest import Office


class Source(LedgerSource):
    """Follows the real ledger, whose disk may be full; the releases of these tests hold no model."""

    is_full = False

    def load(self, _: object) -> Live:
        """Something with what queues ask for."""
        return SimpleNamespace(spec=SimpleNamespace(name="payment_fraud"), encodes_all=False, inputs=[])  # type: ignore[return-value]

    def end(self, challenge: Challenge, reason: str) -> None:
        """End it, where there is room to say so."""
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().end(challenge, reason)


class Shadows:
    """Shadows of which none can be started, while `is_broken`."""

    running: Sequence[Challenge] = ()
    is_broken = False

    def follow(self, wanted: Sequence[Challenge]) -> None:
        """Run these."""
        if self.is_broken:
            raise OSError(12, "Cannot allocate memory")
        self.running = wanted


class Scene:
    """One canary in an office, and who follows it."""

    def __init__(self, office: Office, canary: Bundle, metrics: Metrics) -> None:
        self.office, self.canary, self.metrics = office, canary, metrics
        self.source, self.shadows = Source(office.root, lambda _: None), Shadows()  # type: ignore[arg-type,return-value]
        self.answering: dict[str, Trial] = {}
        self.trials = Trials(self.source, self.shadows, self._install, metrics=metrics)  # type: ignore[arg-type]
        self.trials.poll()
        assert "payment_fraud" in self.answering

    def _install(self, trials: dict[str, Trial]) -> None:
        self.answering = trials

    def revoke(self) -> None:
        """Take the canary's approval back."""
        revoke(self.office.ledger, self.office.people, self.canary, signer=self.office.signers["ada"], reason="harms")

    def counted(self, name: str, **labels: str) -> float | None:
        """What a metric says."""
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def scene(office: Office, release: Bundle) -> Scene:
    policy = office.seal_policy()
    office.approve(release, policy)
    (office.root / "people.yaml").write_text(office.people.model_dump_json())
    challenge(office.ledger, office.people, release, policy, by="tom", share=0.5)
    return Scene(office, release, Metrics())


def test_a_revoked_canary_is_taken_off_though_no_shadow_can_be_started(scene: Scene) -> None:
    scene.shadows.is_broken = True
    scene.revoke()

    scene.trials.poll()

    assert scene.answering == {}
    assert scene.counted("mews_trials_failed", step="shadows") == 1


def test_a_stop_that_cannot_be_recorded_is_counted_once_and_stops_nothing_else(scene: Scene) -> None:
    scene.source.is_full = True
    scene.answering["payment_fraud"].canary.stopped = "its action rate lies outside"

    for _ in range(3):
        scene.trials.poll()
    during = scene.counted("mews_trials_failed", step="alarms")
    scene.revoke()
    scene.trials.poll()
    revoked = dict(scene.answering)
    scene.source.is_full = False
    scene.trials.poll()

    assert scene.counted("mews_canary_stopped_total", detector="payment_fraud") == 1
    assert (during, scene.counted("mews_trials_failed", step="alarms")) == (1, 0)
    assert revoked == {}
