"""What the demos share: a home that starts anew, stages that are timed and shown, two signers, and one line of why."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from orchestration.approvals import Approvals
from orchestration.runs import RunResult
from orchestration.settings import Settings

SIGNERS = {"ada": "ml", "grace": "policy"}
POLL_S, WATCH_EVERY_S = 0.5, 5.0
MARK = "demo.json"  # a demo's figures; a home that holds it may be forgotten by the next demo


class StageFailed(RuntimeError):
    """A stage of the demo did not succeed; the message is its one line of why."""


class HomeInUse(RuntimeError):
    """The home holds what no demo made."""


@dataclass
class Story:
    """Says what happens while it happens, and how long each stage took."""

    console: Console = field(default_factory=Console)
    seconds: dict[str, float] = field(default_factory=dict)
    logs: Path = Path("logs")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and show that it is under way."""
        start = time.monotonic()
        with self.console.status(name):
            yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.say(f"[green]✓[/] {name} [dim]{self.seconds[name]:.1f} s[/]")

    def say(self, line: str) -> None:
        """One line, however narrow the terminal or the file."""
        self.console.print(line, soft_wrap=True, highlight=False)

    def wait(self, is_done: Callable[[], bool], *, timeout_s: float, watch: Callable[[], str | None]) -> None:
        """Until something has happened elsewhere; raises StageFailed after the time, or when `watch` says why not."""
        begun = watched = time.monotonic()
        while not is_done():
            time.sleep(POLL_S)
            if time.monotonic() - watched > WATCH_EVERY_S:
                watched = time.monotonic()
                if trouble := watch():
                    raise StageFailed(trouble)
            if time.monotonic() - begun > timeout_s:
                raise StageFailed(f"nothing came of it within {timeout_s:.0f} s; the logs are in {self.logs}")


def require(result: RunResult) -> None:
    """End the story where a run failed."""
    if not result.is_success:
        raise StageFailed(result.line)


def approve(desk: Approvals, detector: str, policy: str) -> None:
    """Both people sign the newest release of a detector and the newest policy."""
    for bundle in (desk.newest_release(detector), desk.newest_policy(policy)):
        for person in SIGNERS:
            desk.sign(bundle, desk.signer(person))


def start_anew(settings: Settings) -> None:
    """Forget an earlier demo; never a home that was filled in another way."""
    settings.home.mkdir(parents=True, exist_ok=True)
    found = sorted(path for path in settings.home.iterdir() if path.name not in (MARK, "bench"))
    if found and not (settings.home / MARK).exists():
        names = ", ".join(path.name for path in found[:3])
        raise HomeInUse(f"{settings.home} holds what no demo made ({names}); set MEWS_HOME to another folder")
    (settings.home / MARK).write_text("{}", encoding="utf-8")
    for path in found:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
