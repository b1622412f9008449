"""Lets what the service saw count for features, in a process of its own: it kept the interpreter from answering.

The service writes events to the input of `python -m serving.pushing HOME STORES`, a line for those of a moment. The
process ends with its input, and so with the service; of what it could not keep it writes how many there were, and why.
"""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from feature_repo.facts import Event
from feature_repo.push import push
from feature_repo.states import open_states
from serving.backlog import Backlog

_log = logging.getLogger(__name__)
_WITHIN_S = 5.0  # the store is to take a push
_AGAIN_S = 5.0  # after a process was started, another one may be
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[str, dict[str, Any]]]).decode


class Pushes:
    """Events on their way to the online store of a home; what cannot be kept up with is dropped and counted.

    The process starts with the first event, and again when it ended. `stores` names Redis, or SQLite where it is empty.
    """

    def __init__(self, home: Path, stores: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-m", "serving.pushing", str(home), json.dumps(dict(stores))]
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before_s = 0.0
        self._num_refused = 0  # by the process, as the store did not take them
        self._backlog: Backlog[tuple[str, Event]] = Backlog("features", self._send)

    @property
    def num_lost(self) -> int:
        """Events that count for nothing until features are computed from the lake again.

        What a killed process had taken in is not among them.
        """
        return self._backlog.num_dropped + self._backlog.num_failed + self._num_refused

    def put(self, table: str, event: Event) -> None:
        """Leave one event; never waits."""
        self._backlog.put((table, event))

    def close(self, timeout_s: float = 5.0) -> None:
        """Let what waits be pushed, for at most `timeout_s`."""
        is_done = self._backlog.close(timeout_s)
        if self._process:
            if not is_done:  # it takes nothing, and who writes to it waits
                self._process.kill()
            _end_input(self._process)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _send(self, events: list[tuple[str, Event]]) -> None:
        data = _encode(events) + b"\n"
        stream = self._running().stdin
        assert stream is not None
        stream.write(data)
        stream.flush()

    def _running(self) -> "subprocess.Popen[bytes]":
        """The process; raises OSError where it does not run and it is too early to start it again."""
        if self._process and self._process.poll() is None:
            return self._process
        if time.monotonic() < self._not_before_s:
            raise OSError("the process that pushes features ended a moment ago")
        if self._process:
            _log.warning("the process that pushes features ended with %s", self._process.returncode)
            _end_input(self._process)
        self._not_before_s = time.monotonic() + _AGAIN_S
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        return self._process

    def _listen(self, refused: IO[bytes]) -> None:
        with refused:
            for line in refused:
                number, why = json.loads(line)
                self._num_refused += number
                _log.warning("features of %d events were not kept: %s", number, why)


def _end_input(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def main(home: Path, stores: Mapping[str, str], lines: IO[bytes]) -> None:
    """Push what comes until nothing more does; a store that is away for a while costs what came meanwhile."""
    states = open_states(home, redis=stores.get("redis", ""), deadline_s=_WITHIN_S)
    for line in lines:
        events = _decode(line)
        try:
            push(states, events)
        except Exception as error:  # noqa: BLE001  # an edge: whatever fails here must not end the process
            sys.stdout.write(json.dumps([len(events), type(error).__name__]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.stdin.buffer)
