"""What the errors that a caller can do something about are answered with."""

from starlette.exceptions import HTTPException

from serving.batcher import Overloaded
from serving.decision_log import LogFull
from serving.events import InvalidEvent
from serving.guard import Refusal, retry_after
from serving.moderator import NotServed

_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    InvalidEvent: (400, "invalid_request"),
    NotServed: (404, "not_served"),
    Overloaded: (429, "overloaded"),
    LogFull: (503, "log_full"),
}
REFUSED: tuple[type[Exception], ...] = (Refusal, HTTPException, *_REFUSALS)


def refusal_of(error: Exception) -> Refusal:
    """Status, kind and message of one of the errors in `REFUSED`."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):
        headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
        return Refusal(error.status_code, "http_error", error.detail, headers)
    status, kind = _REFUSALS[type(error)]
    return Refusal(status, kind, str(error), retry_after(1) if status in (429, 503) else ())
