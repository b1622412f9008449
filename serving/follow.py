"""Follows what is deployed and approved: loads a release beside the old one, proves it, and swaps one reference."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from serving.live import Live
from serving.metrics import Metrics

_log = logging.getLogger(__name__)
VERIFY_EVERY_S = 60.0


class Deployment(NamedTuple):
    """One release with one policy, that was asked to be served."""

    detector: str
    release: str
    policy_digest: str
    hotfix: str = ""


class Source(Protocol):
    """Where deployments are recorded and how one becomes servable memory; every method may raise.

    `trouble` says why the people are those of before.
    """

    trouble: str

    def version(self) -> object:
        """Anything that changes when a deployment, an approval or a revocation is recorded."""

    def wanted(self) -> Mapping[str, Sequence[Deployment]]:
        """What to serve per detector, and after it what to fall back to."""

    def require_servable(self, deployment: Deployment) -> None:
        """Raise unless release and policy are approved, unrevoked and unaltered."""

    def load(self, deployment: Deployment) -> Live:
        """Bring it to memory and prove it by its golden answers."""


class Follower:
    """Serves, per detector, the newest deployment that may be served; whatever fails keeps the one before it."""

    def __init__(self, source: Source, install: Callable[[str, Live | None], None], *, metrics: Metrics) -> None:
        self._source, self._install, self._metrics = source, install, metrics
        self._serving: dict[str, Deployment] = {}
        self._trouble: dict[str, list[str]] = {}
        self._version: object = None
        self._verified = -VERIFY_EVERY_S

    @property
    def is_ready(self) -> bool:
        """The ledger was read once, and at least one detector answers.

        A detector without anything servable is that detector's trouble (its requests get 404, `mews_follow_failed` and
        /v1/releases say so): every worker sees the same ledger, so to be unready for it would take all of them, with
        the detectors that do answer, out of the load balancer at once.
        """
        return self._version is not None and bool(self._serving)

    def status(self) -> dict[str, Any]:
        """What is served for each detector, and why something newer is not."""
        names = sorted({*self._serving, *self._trouble})
        return {"ready": self.is_ready, "detectors": [self._status(name) for name in names]}

    def _status(self, detector: str) -> dict[str, Any]:
        serving = self._serving.get(detector)
        return {
            "detector": detector,
            "release": serving.release if serving else None,
            "policy_digest": serving.policy_digest if serving else None,
            "trouble": self._trouble.get(detector, []),
        }

    def reopen(self, detector: str, *, release: str, policy_digest: str, hotfix: str = "") -> Live:
        """Load a release of the past to replay a decision; it answers nobody."""
        return self._source.load(Deployment(detector, release, policy_digest, hotfix))

    def poll(self) -> None:
        """Look once; cheap while nothing changed, with everything verified again each minute."""
        try:
            version = self._source.version()
            if version != self._version or time.monotonic() - self._verified >= VERIFY_EVERY_S:
                for detector, candidates in self._source.wanted().items():
                    self._follow(detector, candidates)
                self._version, self._verified = version, time.monotonic()
        except Exception as error:  # noqa: BLE001  # an edge: an unreadable ledger changes nothing that is served
            _log.error("the ledger cannot be followed: %s", error)
            self._metrics.follow_failed.labels("ledger").set(1)
        else:
            self._metrics.follow_failed.labels("ledger").set(0)
            self._metrics.follow_failed.labels("people").set(bool(self._source.trouble))

    def _follow(self, detector: str, candidates: Sequence[Deployment]) -> None:
        trouble: list[str] = []
        for deployment in candidates:
            try:
                self._serve(deployment)
                break
            except Exception as error:  # noqa: BLE001  # an edge: whatever a release does, the one before it stays
                trouble.append(f"release {deployment.release[:19]}: {type(error).__name__}: {error}")
        else:
            self._stop(detector)
        if trouble != self._trouble.get(detector):
            _log.warning("%s: %s", detector, "; ".join(trouble) or "served as deployed")
        self._trouble[detector] = trouble
        self._metrics.follow_failed.labels(detector).set(bool(trouble))

    def _serve(self, deployment: Deployment) -> None:
        self._source.require_servable(deployment)
        if self._serving.get(deployment.detector) == deployment:
            return
        live = self._source.load(deployment)
        self._note(deployment.detector, deployment)
        self._install(deployment.detector, live)

    def _stop(self, detector: str) -> None:
        if detector in self._serving:
            self._note(detector, None)
            self._install(detector, None)

    def _note(self, detector: str, deployment: Deployment | None) -> None:
        if before := self._serving.pop(detector, None):
            self._metrics.serving.labels(detector, before.release).set(0)  # remove() does nothing under BentoML
        if deployment:
            self._serving[detector] = deployment
            self._metrics.serving.labels(detector, deployment.release).set(1)
        self._metrics.swaps.labels(detector).inc()
