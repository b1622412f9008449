"""How soon a dead worker is missed; for the process that starts the workers, and for no other.

BentoML's supervisor looks after them each ten seconds, which made up most of the time that a killed worker stayed away.
"""

from typing import Any

from bentoml._internal.utils import circus

_LOOK_EVERY_S = 0.5


class _Attentive(circus.Arbiter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "check_delay": _LOOK_EVERY_S})


def look_often() -> None:
    """Let the supervisor that BentoML is about to start look each half second."""
    circus.Arbiter = _Attentive
