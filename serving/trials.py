"""Follows who challenges the champions: runs the shadows, lets canaries answer, and ends those that raised an alarm."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from serving.canary import Canary
from serving.challenges import Challenge
from serving.follow import VERIFY_EVERY_S, Deployment
from serving.live import Live
from serving.metrics import Metrics
from serving.moderator import Trial
from serving.queues import Scorers, assessing
from serving.shadow import Shadows

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where challenges are recorded; every method may raise."""

    def version(self) -> object: ...  # noqa: D102
    def challenges(self) -> Sequence[Challenge]: ...  # noqa: D102
    def require_servable(self, deployment: Deployment) -> None: ...  # noqa: D102
    def load(self, deployment: Deployment) -> Live: ...  # noqa: D102
    def end(self, challenge: Challenge, reason: str) -> None: ...  # noqa: D102


class Trials:
    """What runs beside the champions; whatever fails here ends a challenge and nothing else."""

    def __init__(
        self, source: Source, shadows: Shadows, install: Callable[[dict[str, Trial]], None], *, metrics: Metrics
    ) -> None:
        self._source, self._shadows, self._install, self._metrics = source, shadows, install, metrics
        self.running: dict[str, Trial] = {}
        self._shadowing: list[Challenge] = []
        self._stopped: set[Challenge] = set()  # by an alarm, since this process began
        self._refused: dict[Challenge, str] = {}
        self._version: object = None
        self._verified = -VERIFY_EVERY_S

    def poll(self) -> None:
        """Look once: at alarms always, at the ledger when it changed or a minute passed. Each step fails alone."""
        with self._alone("alarms"):
            self._end_stopped()
        with self._alone("ledger"):
            version = self._source.version()
            if version != self._version or time.monotonic() - self._verified >= VERIFY_EVERY_S:
                self._follow()
                self._version, self._verified = version, time.monotonic()
        with self._alone("shadows"):
            self._shadows.follow(self._shadowing)

    @contextmanager
    def _alone(self, step: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # an edge: challengers never stop the service, nor each other
            _log.error("challenges: %s cannot be followed: %s", step, type(error).__name__)
            self._metrics.trials_failed.labels(step).set(1)
        else:
            self._metrics.trials_failed.labels(step).set(0)

    def status(self) -> list[dict[str, Any]]:
        """The challenges that run, and why others do not."""
        return [
            *({"detector": c.detector, "release": c.release, "share": c.share, "trouble": []} for c in self._lasting()),
            *(
                {"detector": c.detector, "release": c.release, "share": c.share, "trouble": [why]}
                for c, why in self._refused.items()
            ),
        ]

    def _lasting(self) -> list[Challenge]:
        return [*self._shadows.running, *(trial.canary.challenge for trial in self.running.values())]

    def _follow(self) -> None:
        wanted = [c for c in self._source.challenges() if self._is_servable(c)]
        self._shadowing = [c for c in wanted if not c.share]
        newest = {c.detector: c for c in sorted(wanted, key=lambda c: c.number) if c.share}
        self.running = {d: t for d, c in newest.items() if (t := self._trial(c)) is not None}
        self._install(dict(self.running))

    def _is_servable(self, challenge: Challenge) -> bool:
        try:
            self._source.require_servable(_deployment(challenge))
        except Exception as error:  # noqa: BLE001  # an edge: not servable, for whatever reason
            self._refuse(challenge, error)
            return False
        self._refused.pop(challenge, None)
        return True

    def _trial(self, challenge: Challenge) -> Trial | None:
        if (running := self.running.get(challenge.detector)) and running.canary.challenge == challenge:
            return running
        try:
            live = self._source.load(_deployment(challenge))
            executor = ThreadPoolExecutor(1, thread_name_prefix="canary")
            scorers = Scorers(executor, executor, executor, executor)
            return Trial(Canary(challenge), live, assessing(live, scorers, may_run_inline=False))
        except Exception as error:  # noqa: BLE001  # an edge: a canary that does not load answers nobody
            self._refuse(challenge, error)
            return None

    def _refuse(self, challenge: Challenge, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        if self._refused.get(challenge) != why:
            _log.warning("challenger %s of %s: %s", challenge.release[:12], challenge.detector, why)
        self._refused[challenge] = why

    def _end_stopped(self) -> None:
        """Let the ledger know of every canary that an alarm stopped: it answers nobody already."""
        stopped = [trial.canary for trial in self.running.values() if trial.canary.stopped]
        for canary in stopped:
            challenge = canary.challenge
            if challenge not in self._stopped:
                _log.error("canary %s of %s stopped: %s", challenge.release[:12], challenge.detector, canary.stopped)
                self._metrics.canary_stopped.labels(challenge.detector).inc()
                self._stopped.add(challenge)
        for canary in stopped:
            self._source.end(canary.challenge, canary.stopped)


def _deployment(challenge: Challenge) -> Deployment:
    return Deployment(challenge.detector, challenge.release, challenge.policy)
