"""A mapping of texts, a row that it reads, and where imports go, for the tests of importing."""

import json
from pathlib import Path

from feature_repo.lake import Lake
from orchestration.mapping import Mapping

TEXTS = Mapping.model_validate(
    {
        "name": "texts",
        "table": "requests",
        "event_id": "id",
        "time": {"column": "at"},
        "columns": {
            "kind": {"column": "kind", "default": "prompt", "values": {"chat": "message"}},
            "text": "text",
            "num_tokens": "tokens",
            "account_id": {"column": "user", "is_hashed": True},
        },
        "labels": {"toxic": "bad", "fraud_spam": {"column": "spam", "values": {"spam": 1, "ham": 0, "unsure": None}}},
        "labels_known_after_days": 2,
    }
)
GOOD = {
    "id": "x1",
    "at": "2026-03-01T12:00:00",
    "kind": None,
    "text": "hello",
    "tokens": "2",
    "user": "ann@mail.example",
    "bad": "1",
    "spam": "ham",
}


def jsonl(folder: Path, *rows: dict[str, str | None], name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def inbox(lake: Lake, table: str = "requests") -> list[dict[str, object]]:
    with lake.connect() as connection:
        return connection.sql(f"{lake.select('inbox', table)} ORDER BY ALL").to_arrow_table().to_pylist()
