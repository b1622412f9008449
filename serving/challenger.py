"""A challenger's process: scores, decides and logs what the champion answered, and acts on nobody.

`python -m serving.challenger HOME STORES DETECTOR RELEASE POLICY FD` reads messages from a socket until its end, and
dies with the service that started it.
"""

import asyncio
import ctypes
import json
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from serving.budget import Budget
from serving.decision_log import DecisionLog
from serving.follow import Deployment
from serving.known import Known
from serving.metrics import Metrics
from serving.moderator import Acted, Moderator
from serving.queues import Call
from serving.shadow import Message
from serving.source import LedgerSource
from serving.strike_stores import SqliteStrikes
from serving.strikes import Strikes
from serving.tracing import Telemetry, Tracing
from serving.vault import Vault

_MAX_MESSAGE = 4 << 20
_MAX_TOGETHER = 64  # events
_TICK_S = 1.0  # between two looks at whether the log is to be sealed, where nothing comes
_PR_SET_PDEATHSIG = 1
_decode = msgspec.json.Decoder(Message).decode


def main(home: Path, stores: dict[str, str], deployment: Deployment, events: socket.socket) -> None:
    """Load the release, which is verified here as everywhere, and work until the socket ends."""
    source = LedgerSource(home, Known(home, stores).reader)
    source.require_servable(deployment)
    log = DecisionLog(home / "decisions")
    # Of its own: it must not spend the champion's budget, and nobody was struck by what it would have done.
    acted = Acted(Budget(home / "budget" / deployment.release), Strikes(SqliteStrikes(None, deadline_s=1.0)))
    moderator = Moderator(
        log=log,
        vault=Vault(home / "keys"),
        pushes=None,
        telemetry=Telemetry(Metrics(), Tracing()),
        acted=acted,
        role="challenger",
    )
    moderator.install(deployment.detector, source.load(deployment))
    events.settimeout(_TICK_S)
    with asyncio.Runner() as runner:
        while (messages := _received(events)) is not None:
            runner.run(_decide(moderator, deployment.detector, messages))
            log.tick()
    log.close()


def end_with_parent() -> None:
    """Ask the kernel to."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _received(events: socket.socket) -> list[Message] | None:
    """The next messages that were sent together; an empty list where none came for a while, None at the end."""
    try:
        data = events.recv(_MAX_MESSAGE)
    except TimeoutError:
        return []
    return [_decode(one) for one in data.splitlines()] or None


async def _decide(moderator: Moderator, detector: str, messages: list[Message]) -> None:
    champion = moderator.champion(detector)
    for some in _in_turn(messages):
        calls = (moderator.decide(champion, m.events, call=Call(m.request_id, m.caller)) for m in some)
        await asyncio.gather(*calls)


def _in_turn(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """As many messages at a time as make one batch, so that none waits longer than a request may."""
    some, num_events = list[Message](), 0
    for message in messages:
        if some and num_events + len(message.events) > _MAX_TOGETHER:
            yield some
            some, num_events = [], 0
        some.append(message)
        num_events += len(message.events)
    if some:
        yield some


if __name__ == "__main__":
    end_with_parent()
    home, stores, detector, release, policy, fd = sys.argv[1:]
    with socket.socket(fileno=int(fd)) as events:
        main(Path(home), json.loads(stores), Deployment(detector, release, policy), events)
