import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.ledger import Head, Ledger, LedgerAltered

# Signs on until it is killed; a number is written to its own file only after the ledger acknowledged it.
WRITER = """
import itertools, os, sys
from pathlib import Path
from serving.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in itertools.count():
    name = f"{sys.argv[3]}-{i}"
    ledger.append("approved", {"name": name})
    os.write(acknowledged, (name + "\\n").encode())
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def reopened(ledger: Ledger) -> Ledger:
    return Ledger(ledger.path)


def test_an_empty_ledger_verifies(ledger: Ledger) -> None:
    assert ledger.verify() == Head()


def test_another_process_reads_what_was_acknowledged(ledger: Ledger) -> None:
    entry = ledger.append("sealed", {"digest": "d", "share": 0.1})

    assert reopened(ledger).entries() == (entry,)


def test_a_reader_sees_later_entries_without_reading_the_earlier_again(ledger: Ledger) -> None:
    reader = reopened(ledger)
    for i in range(3):
        ledger.append("sealed", {"i": i})
        assert len(reader.entries()) == i + 1


def test_a_half_written_line_is_cut_by_the_next_append(ledger: Ledger) -> None:
    ledger.append("sealed", {"i": 0})
    with ledger.path.open("ab") as file:
        file.write(b'{"at_us":1,"body":{"i":1},"ha')

    assert len(reopened(ledger).entries()) == 1
    reopened(ledger).append("sealed", {"i": 2})
    assert [e.body["i"] for e in reopened(ledger).entries()] == [0, 2]


def test_a_complete_line_that_was_not_acknowledged_stays(ledger: Ledger) -> None:
    ledger.append("sealed", {"i": 0})
    head = ledger.path.with_suffix(".head")
    before = head.read_bytes()
    ledger.append("sealed", {"i": 1})
    head.write_bytes(before)

    assert [e.body["i"] for e in reopened(ledger).entries()] == [0, 1]


def test_a_removed_file_is_found(ledger: Ledger) -> None:
    ledger.append("sealed", {})
    ledger.path.unlink()

    with pytest.raises(LedgerAltered, match="entry 1 is missing"):
        reopened(ledger).verify()


def test_a_new_witness_remembers_from_now_on(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("sealed", {})
    ledger.add_witness(tmp_path / "other" / "head")

    assert json.loads((tmp_path / "other" / "head").read_bytes())["number"] == 1
    assert Ledger(ledger.path, witnesses=[tmp_path / "other" / "head"]).verify() == ledger.head


def test_entries_inside_one_turn_of_the_pen_are_consecutive(ledger: Ledger) -> None:
    with ledger.writing() as page:
        first = page.append("deploying", {})
        second = page.append("deployed", {})

    assert (second.number, second.previous) == (first.number + 1, first.hash)


@settings(max_examples=60, deadline=None)
@given(num_entries=st.integers(1, 6), data=st.data())
def test_no_altered_byte_goes_unseen(num_entries: int, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        for i in range(num_entries):
            ledger.append("approved", {"i": i, "name": "ü"})
        content = bytearray(ledger.path.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] ^= data.draw(st.integers(1, 255))
        ledger.path.write_bytes(content)

        with pytest.raises(LedgerAltered, match=r"entry \d+"):
            reopened(ledger).verify()


@pytest.mark.slow
def test_two_writers_killed_a_hundred_times_lose_and_double_nothing(ledger: Ledger, tmp_path: Path) -> None:
    luck = random.Random(7)
    writers = [start(ledger, tmp_path, i) for i in range(2)]
    for i in range(2, 102):
        time.sleep(luck.uniform(0.05, 0.15))
        victim = writers.pop(luck.randrange(2))
        victim.kill()
        victim.wait()
        writers.append(start(ledger, tmp_path, i))
    for writer in writers:
        writer.kill()
        writer.wait()

    names = Counter(entry.body["name"] for entry in reopened(ledger).entries())
    acknowledged = list(acknowledged_in(tmp_path))

    assert len(acknowledged) > 25  # enough to have met the kills, also on a machine that is busy
    assert [name for name in acknowledged if names[name] != 1] == []
    assert max(names.values()) == 1
    assert reopened(ledger).verify().number == names.total()


def start(ledger: Ledger, folder: Path, i: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITER, ledger.path, folder / f"{i}.acknowledged", str(i)])


def acknowledged_in(folder: Path) -> Iterator[str]:
    for file in folder.glob("*.acknowledged"):
        yield from file.read_text().splitlines()
