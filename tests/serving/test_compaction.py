import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from feature_repo.lake import DAY_US, Lake, day_of
from orchestration.validation import validate_batch
from serving.compaction import Compacted, compact
from serving.record import SCHEMA, UnknownSchema, decode
from serving.segments import frame, sealed_segments
from serving.vault import Vault
from tests.serving.decisions import NOW_US, log, record, request

TODAY = day_of(NOW_US)
FIRST = date(2018, 1, 1)
TEXT = "who wrote this"

# Compacts until nothing waits; it is killed at moments that nobody chose.
COMPACTOR = """
import sys
from datetime import date, timedelta
from pathlib import Path
from feature_repo.lake import Lake
from serving.compaction import compact
from serving.vault import Vault

home = Path(sys.argv[1])
print("ready", flush=True)
today = date.fromisoformat(sys.argv[2])
compact(home / "decisions", Lake(home / "lake"), Vault(home / "keys"), days=[today], first_day=date(2018, 1, 1))
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", memory_limit="1GB")


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "keys")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "decisions"


def bring_back(lake: Lake, *, first_day: date = FIRST) -> Compacted:
    home = lake.root.parent
    days = [TODAY, day_of(time.time_ns() // 1000)]
    return compact(home / "decisions", lake, Vault(home / "keys"), days=set(days), first_day=first_day)


def rows(lake: Lake, query: str) -> list[tuple[object, ...]]:
    with lake.connect() as connection:
        return connection.execute(query).fetchall()


def test_a_decision_and_its_event_come_back_and_the_segment_goes(lake: Lake, vault: Vault, folder: Path) -> None:
    decided = record(request(), vault=vault, text=TEXT)
    log(folder, decided)

    done = bring_back(lake)

    assert (done.num_segments, done.num_decisions, done.num_events) == (1, 1, Counter(requests=1))
    assert sealed_segments(folder) == []
    assert validate_batch(lake, "requests", TODAY).passed
    assert rows(lake, "SELECT event_id, text FROM requests") == [("r1", TEXT)]
    [(decision_id, scores, kept)] = rows(lake, "SELECT decision_id, scores, record FROM decisions")
    assert (decision_id, scores) == (decided.decision_id, {"spam": 0.1 + 1e-17})
    assert decode(str(kept).encode()).scores == decided.scores


def test_no_decision_in_the_lake_holds_a_text_open_or_sealed(lake: Lake, vault: Vault, folder: Path) -> None:
    log(folder, record(request(), vault=vault, text=TEXT))

    bring_back(lake)

    [(kept,)] = rows(lake, "SELECT record FROM decisions")
    assert TEXT not in str(kept)
    assert decode(str(kept).encode()).text is None
    assert decode(str(kept).encode()).text_digest == vault.digest(TEXT)


def test_an_event_that_was_decided_twice_is_one_event_with_its_text(lake: Lake, vault: Vault, folder: Path) -> None:
    log(folder, record(request()), record(request(), vault=vault, text=TEXT, detector="other"))
    log(folder, record(request(), vault=vault, text=TEXT))
    bring_back(lake)
    validate_batch(lake, "requests", TODAY)
    log(folder, record(request(event_us=NOW_US - DAY_US), vault=vault, text=TEXT))

    done = bring_back(lake)

    assert (done.num_decisions, done.num_known) == (1, 1)
    assert lake.days("inbox", "requests") == []
    assert rows(lake, "SELECT event_id, text FROM requests") == [("r1", TEXT)]
    assert rows(lake, "SELECT count(*) FROM decisions") == [(4,)]


def test_an_event_without_its_text_passes_validation_where_the_policy_keeps_none(lake: Lake, folder: Path) -> None:
    log(folder, record(request()))

    bring_back(lake)

    assert validate_batch(lake, "requests", TODAY).passed
    assert rows(lake, "SELECT event_id, text FROM requests") == [("r1", None)]


def test_events_before_the_first_day_of_the_lake_are_counted_and_left_out(lake: Lake, folder: Path) -> None:
    log(folder, record(request(event_us=0)))

    done = bring_back(lake)

    assert (done.num_too_old, lake.days("inbox", "requests")) == (1, [])
    assert rows(lake, "SELECT event_us FROM decisions") == [(0,)]


def test_what_was_compacted_when_the_segment_was_not_removed_is_not_there_twice(
    lake: Lake, vault: Vault, folder: Path
) -> None:
    segment = log(folder, *(record(request(number), vault=vault, text=TEXT) for number in range(10)))
    content = segment.read_bytes()
    for step in range(3):
        bring_back(lake)
        if step == 1:
            validate_batch(lake, "requests", TODAY)
        segment.write_bytes(content)  # as if the process had died just before it removed the segment

    bring_back(lake)
    validate_batch(lake, "requests", TODAY)

    assert rows(lake, "SELECT count(*), count(DISTINCT event_id) FROM requests") == [(10, 10)]
    assert rows(lake, "SELECT count(*), count(DISTINCT decision_id) FROM decisions") == [(10, 10)]


class Died(BaseException):
    """As a kill does: nothing runs after it, except that the lock is freed."""


class Deadly:
    """Lets a number of steps towards the disk happen, and dies at the next one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_left = -1
        for module, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (pq, "write_table")):
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.num_left -= 1
            if self.num_left == -1:
                raise Died
            return step(*args, **kwargs)

        return call


@pytest.mark.slow
def test_a_compaction_that_dies_at_any_step_brings_everything_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly, has_died = Deadly(monkeypatch), True
    num_deaths = 0
    while has_died:
        lake = Lake(tmp_path / str(num_deaths) / "lake", memory_limit="1GB")
        folder = lake.root.parent / "decisions"
        log(folder, record(request(1)), record(request(2, event_us=NOW_US - DAY_US)), record(request(1)))
        log(folder, record(request(2)), record(request(3)))

        deadly.num_left = num_deaths
        try:
            bring_back(lake)
            has_died = False
        except Died:
            num_deaths += 1
        deadly.num_left = -1
        bring_back(lake)

        ids = f"SELECT event_id FROM read_parquet('{lake.root}/inbox/requests/*/*.parquet') ORDER BY event_id"
        assert rows(lake, ids) == [("r1",), ("r2",), ("r3",)]
        assert rows(lake, "SELECT count(*), count(DISTINCT decision_id) FROM decisions") == [(5, 5)]
    assert num_deaths > 30


@pytest.mark.slow
def test_a_compaction_killed_again_and_again_brings_everything_back_once(
    lake: Lake, vault: Vault, folder: Path, tmp_path: Path
) -> None:
    for segment in range(12):
        numbers = range(segment * 40, segment * 40 + 50)  # ten events are decided again in the next segment
        log(folder, *(record(request(n), vault=vault, text=TEXT) for n in numbers))

    for attempt in range(4):
        arguments = [sys.executable, "-c", COMPACTOR, str(tmp_path), TODAY.isoformat()]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.04 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        validate_batch(lake, "requests", TODAY)
    bring_back(lake)
    validate_batch(lake, "requests", TODAY)

    assert sealed_segments(folder) == []
    assert rows(lake, "SELECT count(*), count(DISTINCT decision_id) FROM decisions") == [(600, 600)]
    assert rows(lake, "SELECT count(*), count(DISTINCT event_id) FROM requests") == [(490, 490)]


def test_an_altered_segment_stays_and_is_named_and_the_others_go_on(lake: Lake, folder: Path) -> None:
    altered, _ = log(folder, record(request(1)), record(request(2))), log(folder, record(request(3)))
    content = bytearray(altered.read_bytes())
    content[60] ^= 1
    altered.write_bytes(content)

    done = bring_back(lake)

    assert done.damaged == [altered.name]
    assert sealed_segments(folder) == [altered]
    assert rows(lake, "SELECT event_id FROM decisions") == [("r3",)]


def test_a_record_of_a_newer_version_is_refused_loudly_and_waits_with_those_behind_it(lake: Lake, folder: Path) -> None:
    schemas = [SCHEMA] * 5 + [99, SCHEMA]
    segments = [log(folder, record(request(n), schema=s, at_us=NOW_US + n)) for n, s in enumerate(schemas)]

    with pytest.raises(UnknownSchema, match=r"record\.schema is 99"):
        bring_back(lake)

    waiting = sealed_segments(folder)
    moved = rows(lake, "SELECT event_id FROM decisions ORDER BY event_id")
    assert waiting[-2:] == segments[-2:]
    assert moved == [(f"r{n}",) for n, segment in enumerate(segments) if segment not in waiting]


def test_a_garbage_file_in_the_inbox_does_not_stop_the_compaction(lake: Lake, folder: Path) -> None:
    garbage = lake.folder("inbox", "requests", TODAY) / "part.parquet"
    garbage.parent.mkdir(parents=True)
    garbage.write_bytes(frame(b"no parquet"))
    log(folder, record(request()))

    assert bring_back(lake).num_events == Counter(requests=1)


def test_an_event_that_somebody_else_brings_at_the_same_time_is_left_to_them(lake: Lake, folder: Path) -> None:
    log(folder, record(request(1)), record(request(2)))
    bring_back(lake)
    [mine] = lake.folder("inbox", "requests", TODAY).glob("*.parquet")
    mine.rename(mine.with_name("part.parquet"))
    log(folder, record(request(2)), record(request(3)))

    bring_back(lake)

    [served] = lake.folder("inbox", "requests", TODAY).glob("served-*.parquet")
    assert pq.read_table(served, partitioning=None)["event_id"].to_pylist() == ["r3"]


@pytest.mark.slow
def test_a_day_that_is_not_over_may_still_be_small_and_yesterday_may_not(lake: Lake, folder: Path) -> None:
    now_us = time.time_ns() // 1000  # the tests may have begun yesterday
    today = day_of(now_us)
    for ago in range(5, 1, -1):
        day_us = now_us - ago * DAY_US
        log(folder, *(record(request(ago * 1000 + n, event_us=day_us)) for n in range(150)))
    log(folder, record(request(1, event_us=now_us)), record(request(2, event_us=now_us - DAY_US)))
    bring_back(lake)
    for ago in range(5, 1, -1):
        assert validate_batch(lake, "requests", today - timedelta(days=ago)).passed

    assert not validate_batch(lake, "requests", today - timedelta(days=1)).passed
    assert validate_batch(lake, "requests", today).passed
