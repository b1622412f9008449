"""What the service is made of, over one home; without BentoML, so that a test builds it as the service does."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from starlette.types import ASGIApp

from serving.admin import PREFIX, build_admin
from serving.api import Desk, build_app
from serving.auth import KeyRing
from serving.budget import Budget
from serving.decision_log import DecisionLog
from serving.follow import Follower
from serving.guard import Guard, Limits
from serving.known import Known
from serving.ledger import Ledger
from serving.metrics import Metrics
from serving.moderator import Acted, Moderator
from serving.past import Past
from serving.pushing import Pushes
from serving.room import Room
from serving.shadow import Shadows
from serving.source import LedgerSource
from serving.strike_stores import open_strikes
from serving.strikes import Strikes
from serving.tracing import Telemetry, Tracing
from serving.trials import Trials
from serving.vault import Vault

FOLLOW_EVERY_S = 1.0
STRIKES_WITHIN_S = 0.5  # to read or to keep some; without them a decision goes no step up its ladder
_log = logging.getLogger(__name__)


class Parts:
    """The door, and behind it the moderator, its log, and the follower that gives it releases."""

    def __init__(
        self,
        home: Path,
        *,
        keys: Path | None = None,
        stores: Mapping[str, str] | None = None,
        bentoml: ASGIApp | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.tracing = tracing or Tracing()
        self.metrics, self.keys = Metrics(), KeyRing(keys or home / "api_keys.json")
        known, vault = Known(home, stores or {}), Vault(home / "keys")
        self.log = DecisionLog(home / "decisions")
        self.pushes = Pushes(home, stores or {})
        self.budget = Budget(home / "budget")
        store = open_strikes(home, redis=(stores or {}).get("redis", ""), deadline_s=STRIKES_WITHIN_S)
        self.strikes = Strikes(store, past=(home / "decisions", home / "lake"))
        self.shadows = Shadows(home, stores or {}, self.metrics)
        telemetry = Telemetry(self.metrics, self.tracing)
        self.moderator = Moderator(
            log=self.log,
            vault=vault,
            pushes=self.pushes,
            telemetry=telemetry,
            acted=Acted(self.budget, self.strikes),
            shadows=self.shadows,
        )
        source = LedgerSource(home, known.reader)
        self.follower = Follower(source, self.moderator.install, metrics=self.metrics)
        self.trials = Trials(source, self.shadows, self.moderator.let_try, metrics=self.metrics)
        app = build_app(bentoml)
        past = Past(home / "lake", vault)
        app.state.desk = Desk(self.moderator, self.follower, self.trials, vault, past, home / "cache")
        self.admin = build_admin(home, Ledger(home / "ledger" / "ledger.jsonl"))
        app.mount(PREFIX, self.admin)
        self.room = Room()
        self.door: ASGIApp = Guard(app, keys=self.keys, telemetry=telemetry, limits=Limits(), room=self.room)
        self._is_closing = threading.Event()

    def tick(self) -> None:
        """Follow what was deployed, what keys there are, and the age of the log."""
        self.follower.poll()
        self.trials.poll()
        self.strikes.tick([champion.live.policy for champion in self.moderator.champions.values()])
        self.metrics.strikes_owed.set(self.strikes.num_owed)
        self.metrics.turned_away.set(self.room.num_turned_away)
        self.metrics.dropped.labels("features").set(self.pushes.num_lost)
        self.keys.refresh()
        try:
            self.log.tick()
        except (OSError, ValueError) as error:  # releases are followed all the same
            _log.error("the log cannot be sealed: %s", type(error).__name__)

    def run(self) -> None:
        """Tick until closed."""
        while not self._is_closing.wait(FOLLOW_EVERY_S):
            self.tick()

    def close(self) -> None:
        """Finish what is under way: pushes that wait, decisions being written. Closing twice is closing once."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self.shadows.close()
        self.pushes.close()
        self.log.close()
        self.strikes.close()
        self.budget.close()
        self.tracing.close()
