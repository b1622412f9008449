"""Log lines as JSON, one object each, for machines; nothing that a caller sent is in one."""

import logging
from typing import Any

import msgspec

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """When, how bad, who says it, what, and whatever `extra` held."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        return msgspec.json.encode(line).decode()


def log_as_json() -> None:
    """Let what the service says go to standard error as JSON lines, and BentoML say no more of errors than their type.

    A traceback ends with the error's message, and where an input is refused that message repeats it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("mews", "serving"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    for name in ("bentoml._internal.server.http_app", "bentoml.serve"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info:
        error = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
        record.msg, record.args = f"{record.getMessage()}: {error.__name__ if error else 'unknown'}", None
        record.exc_info = record.exc_text = None
    return True
