"""Decisions that went back to the lake, found by their id: what the log no longer holds can still be replayed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from feature_repo.tables import DECISIONS, EVENT_TABLES
from serving.record import Record, decode, encode
from serving.vault import Vault
from serving.verdict import TEXT

if TYPE_CHECKING:
    from feature_repo.lake import Lake

_SLACK_US = 120_000_000  # by how far a decision's clock may differ from that of its segment


class Past:
    """Looks into the lake below `root`, and into few of its files: their names and the ids both tell the time."""

    def __init__(self, root: Path, vault: Vault) -> None:
        self._root, self._vault = root, vault

    def find(self, decision_id: str, at_us: int) -> bytes | None:
        """The record of a decision made at about `at_us`, with its text where the lake still has the one judged."""
        import pyarrow.parquet as pq

        for file in self._files(at_us):
            asked = [("decision_id", "=", decision_id)]
            found = pq.read_table(file, columns=["record"], filters=asked, partitioning=None)["record"].to_pylist()
            if found:
                return encode(self._with_text(decode(found[0].encode())))
        return None

    def _files(self, at_us: int) -> Iterator[Path]:
        """Files of segments that were begun before, the latest first; the one before midnight may hold it, too."""
        from feature_repo.lake import DAY_US, day_of
        from serving.segments import begun_us

        if at_us > time.time_ns() // 1000 + _SLACK_US:  # an id that nobody can have made yet
            return
        for day in sorted({day_of(us) for us in (at_us + _SLACK_US, at_us, at_us - DAY_US)}, reverse=True):
            files = sorted(self._lake.folder("log", DECISIONS.name, day).glob("*.parquet"), reverse=True)
            yield from (file for file in files if begun_us(file) <= at_us + _SLACK_US)

    def _with_text(self, record: Record) -> Record:
        text = self._text(record) if record.text_digest and TEXT in EVENT_TABLES[record.table].columns else None
        return msgspec.structs.replace(record, text=None if text is None else self._vault.seal(text))

    def _text(self, record: Record) -> str | None:
        """An event of the same id may have come with another text; the digest tells."""
        import pyarrow.parquet as pq

        from feature_repo.lake import day_of

        event, day = record.event, day_of(record.event["event_us"])
        asked = [("event_id", "=", event["event_id"])]
        for zone, files in (("events", "*.parquet"), ("inbox", "served-*.parquet")):
            for file in self._lake.folder(zone, record.table, day).glob(files):  # type: ignore[arg-type]
                found = pq.read_table(file, columns=[TEXT], filters=asked, partitioning=None)[TEXT].to_pylist()
                if found and found[0] is not None and self._vault.digest(found[0]) == record.text_digest:
                    return str(found[0])
        return None

    @property
    def _lake(self) -> "Lake":
        from feature_repo.lake import Lake

        return Lake(self._root)
