"""What an operator can see of the service, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of one process; labels are closed sets (routes, detectors, actions), never what a caller sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.responses = self._counter("mews_responses", "Answers by route and status", ["route", "status"])
        self.decisions = self._counter("mews_decisions", "Decisions by action", ["detector", "role", "action"])
        self.degraded = self._counter("mews_degraded", "Decisions without a score, or strikes", ["detector"])
        self.swaps = self._counter("mews_swaps", "Changes of what is served", ["detector"])
        self.seconds = Histogram(
            "mews_request_seconds", "Time to answer", ["route"], registry=self.registry, buckets=_SECONDS
        )
        self.serving = self._gauge(
            "mews_serving", "1 for the release served, 0 for one that was", ["detector", "release"]
        )
        self.follow_failed = self._gauge(
            "mews_follow_failed", "1 while a deployment, the `ledger` or the `people` cannot be read", ["detector"]
        )
        self.shadow_dropped = self._gauge(
            "mews_shadow_dropped", "Requests that a shadow did not see", ["detector", "release"]
        )
        self.shadow_starts = self._gauge("mews_shadow_starts", "Starts of a shadow's process", ["detector", "release"])
        self.canary_stopped = self._counter("mews_canary_stopped", "Canaries stopped by an alarm", ["detector"])
        self.trials_failed = self._gauge("mews_trials_failed", "1 while challenges are not followed", ["step"])
        self.turned_away = self._gauge(
            "mews_turned_away", "Requests refused before they were read, as too many came", []
        )
        self.strikes_owed = self._gauge("mews_strikes_owed", "Strikes that their store has not taken yet", [])
        self.dropped = self._gauge("mews_backlog_dropped", "Items that did not fit a backlog", ["backlog"])

    def _counter(self, name: str, meaning: str, labels: list[str]) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, labels: list[str]) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)

    def render(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self.registry)
