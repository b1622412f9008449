"""What a run says in the terminal that started it: its stages as they begin and end, and how far each is."""

import json
import logging
import os
import sys
from contextlib import suppress
from typing import IO
from weakref import finalize

import dagster as dg
from rich.console import Console

_YES, _NO = "[green]✓[/]", "[red]✗[/]"
_OF_PIPES = "[pipes]"  # begins what Dagster says of its own pipes


@dg.logger(config_schema={"is_shown": bool}, description="One line for each stage; the event log has the rest.")
def terminal(context: dg.InitLoggerContext) -> logging.Logger:
    """Writes to stderr, so that what a command prints can be piped on."""
    logger = logging.Logger("mews.terminal", logging.DEBUG)
    logger.addHandler(Teller() if context.logger_config["is_shown"] else logging.NullHandler())
    return logger


class Teller(logging.Handler):
    """Keeps a line with the newest values of the stage that runs, where there is a terminal to keep it in.

    What a stage writes is captured by Dagster for its page, so this writes to what stderr was before.
    """

    def __init__(self) -> None:
        super().__init__()
        stderr = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="replace")
        finalize(self, _close, stderr)
        self._console = Console(file=stderr)
        self._status = self._console.status("")
        self._values: dict[str, float] = {}
        self._is_refused = False

    def emit(self, record: logging.LogRecord) -> None:
        """Take what Dagster logs; the end of the terminal does not keep Dagster from ending the run in good order."""
        with suppress(OSError, SystemExit):  # the latter is what rich makes of a broken pipe
            self._tell(record)

    def _tell(self, record: logging.LogRecord) -> None:
        """Show events of Dagster's own, and what stages say."""
        meta = record.dagster_meta  # type: ignore[attr-defined]
        stage = (meta["step_key"] or "").replace("__", "/")
        event = meta["dagster_event"]
        if event is None:
            self._said(stage, meta["orig_message"], is_shown=record.levelno >= logging.INFO)
        elif event.is_step_start:
            self._values, self._is_refused = {}, False
            self._status.update(stage)
            self._status.start()
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._is_refused |= not event.asset_check_evaluation_data.passed
        elif event.is_step_success:
            seconds = event.step_success_data.duration_ms / 1000
            self._ended(f"{_NO if self._is_refused else _YES} {stage} [dim]{seconds:.1f} s[/]")
        elif event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            self._ended(f"{_NO} {stage}, which is tried again")
        elif event.is_step_failure:
            self._ended(f"{_NO} {stage}")

    def _said(self, stage: str, message: str, *, is_shown: bool) -> None:
        try:
            seen = json.loads(message)
            name, value = seen["name"], seen["value"]
        except (ValueError, TypeError, KeyError):
            if is_shown and not message.startswith(_OF_PIPES):
                self._console.print(f"  {message}", soft_wrap=True, highlight=False, markup=False)
            return
        if "of" in seen:
            self._status.update(f"{stage} [dim]{name} {value:,} of {seen['of']:,}[/]")
            return
        self._values[name] = value
        values = ", ".join(f"{name} {value:.4g}" for name, value in self._values.items())
        self._status.update(f"{stage} [dim]epoch {seen['epoch'] + 1}, step {seen['step']}: {values}[/]")

    def _ended(self, line: str) -> None:
        self._status.stop()
        self._console.print(line, soft_wrap=True, highlight=False)


def _close(stderr: IO[str]) -> None:
    with suppress(OSError):  # what a terminal that is gone was not told
        stderr.close()
