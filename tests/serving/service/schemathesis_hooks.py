"""How schemathesis writes JSON Lines."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")
