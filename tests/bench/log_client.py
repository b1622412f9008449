"""Asks as fast as it is answered, and notes each acknowledged decision: `log_client ACKS KEY CONNECTIONS PORT...`.

A line of ACKS is written after the answer was read: monotonic seconds, port, decision id, event id.
"""

import http.client
import json
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TextIO

WORDS = ["parcel", "garden", "jackpot", "river", "giveaway", "budget", "poem", "wallet", "lesson", "recipe"]


def ask(port: int, key: str, acks: TextIO) -> None:
    """One connection, again and again until the process is ended."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for number in range(1 << 60):
        event_id = uuid.uuid4().hex
        text = " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 8))
        event = {"event_id": event_id, "text": text, "account_id": f"a{number % 50}"}
        try:
            connection.request("POST", "/v1/decisions", json.dumps({"detector": "content", "event": event}), headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(0.05)
            continue
        if answer.status == 200:
            made = json.loads(body)["decisions"][0]
            acks.write(f"{time.monotonic()} {port} {made['decision_id']} {made['event_id']}\n")
        else:
            time.sleep(0.05)


def main() -> None:
    acks, key, connections, *ports = sys.argv[1:]
    with Path(acks).open("a", buffering=1, encoding="utf-8") as file:
        for port in ports:
            for _ in range(int(connections)):
                threading.Thread(target=ask, args=(int(port), key, file), daemon=True).start()
        sys.stdin.read()  # until the parent closes it, or dies


if __name__ == "__main__":
    main()
