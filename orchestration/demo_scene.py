"""Where a demo happens: its home, its world, and the processes that run beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

from orchestration.approvals import Approvals
from orchestration.detectors import Detector, read_detectors
from orchestration.runs import failure_since
from orchestration.settings import Settings
from orchestration.stack import Ports, processes
from orchestration.story import Story
from orchestration.supervisor import in_background
from orchestration.world.world import World

STARTS_IN_S, STOPS_IN_S = 180, 5.0


@dataclass(frozen=True)
class Demo:
    """One run of the story: where it happens, and what it is about; one day's labels are enough for `retrained`."""

    settings: Settings
    world: World
    story: Story
    ports: Ports
    retrained: str
    only: tuple[str, ...] = ()

    @property
    def desk(self) -> Approvals:
        """The signers' desk."""
        return Approvals(self.settings)

    @property
    def detectors(self) -> dict[str, Detector]:
        """The detectors that take part: all, or only those that are named."""
        found = read_detectors(self.settings.defs)
        return {name: detector for name, detector in found.items() if not self.only or name in self.only}

    @property
    def tables(self) -> list[str]:
        """The tables of events that the service is asked about."""
        return sorted({detector.spec.events for detector in self.detectors.values()})

    @property
    def live_date(self) -> date:
        """The day after the last one of the lake, which nobody trained on: yesterday."""
        return self.world.scale.date_of(self.world.scale.num_days)


@contextmanager
def stack(demo: Demo) -> Iterator[None]:
    """The service, and Dagster's daemon with its sensors; in the team profile MLflow's server as well."""
    settings, needed = demo.settings, {"service", "code", "daemon"}
    if settings.mlflow_uri:
        needed.add("mlflow")
    table = [p for p in processes(settings.home, profile=settings.profile, ports=demo.ports) if p.name in needed]
    with in_background(table, home=settings.home, grace_s=STOPS_IN_S) as supervisor:
        with demo.story.stage("the service and Dagster's daemon come up"):
            demo.story.wait(supervisor.is_up, timeout_s=STARTS_IN_S, watch=lambda: None)
        yield


def wait_until_served(demo: Demo, digests: dict[str, str], *, timeout_s: float) -> None:
    """Until the service says that each of these releases is what answers."""
    import httpx

    from serving.auth import create_key

    key = create_key(demo.settings.home / "api_keys.json", "story", scopes=["read"])
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=10) as client:

        def is_served() -> bool:
            answer = client.get(f"http://127.0.0.1:{demo.ports.service}/v1/releases").json()
            served = {one["detector"]: one["release"] for one in answer["detectors"]}
            return all(served.get(name) == digest for name, digest in digests.items())

        demo.story.wait(is_served, timeout_s=timeout_s, watch=failures(demo))


def failures(demo: Demo) -> Callable[[], str | None]:
    """What watches for runs that the daemon started and that failed."""
    since = datetime.now(UTC)
    return lambda: failure_since(demo.settings, since)
