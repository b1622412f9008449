import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.decision_log import DecisionLog, read_segment
from serving.segments import MAGIC, frame, recover, sealed_segments, whole

WRITER = """
import sys
from pathlib import Path
from serving.decision_log import DecisionLog

log = DecisionLog(Path(sys.argv[1]))
for number in range(100_000):
    log.write([b'{"number":%d}' % number])
    print(number, flush=True)
"""

BEGINNER = """
import sys
from pathlib import Path
from serving.segments import Segment

for _ in range(200):
    Segment(Path(sys.argv[1])).seal()
"""


def records(folder: Path) -> list[bytes]:
    return [record for path in sealed_segments(folder) for record in read_segment(path)]


def test_what_any_thread_wrote_is_read_back_in_its_order(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)

    def write(thread: int) -> None:
        for number in range(50):
            log.write([b'{"thread":%d,"number":%d,"part":%d}' % (thread, number, part) for part in range(2)])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    log.close()

    kept = records(tmp_path)
    for thread in range(4):
        mine = [record for record in kept if record.startswith(b'{"thread":%d,' % thread)]
        assert mine == [
            b'{"thread":%d,"number":%d,"part":%d}' % (thread, number, part) for number in range(50) for part in range(2)
        ]
    assert len(kept) == 400


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(200)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()

    DecisionLog(tmp_path).close()

    kept = records(tmp_path)
    assert kept[: len(acknowledged)] == [b'{"number":%d}' % number for number in acknowledged]
    assert len(kept) == len(set(kept))


def abandoned(folder: Path, content: bytes) -> Path:
    """A segment as a dead process leaves it, with the zeros ahead."""
    path = folder / "0000000000000001-dead.open"
    path.write_bytes(content + bytes(5000))
    return path.with_suffix(".sealed")


RECORDS = [b'{"number":%d}' % number for number in range(3)]
WHOLE = MAGIC + b"".join(map(frame, RECORDS))


@pytest.mark.parametrize("num_before", [0, 2])
def test_a_torn_write_is_cut_off_wherever_it_was_torn(tmp_path: Path, num_before: int) -> None:
    before = MAGIC + b"".join(map(frame, RECORDS[:num_before]))
    written = frame(b'{"number":4,"text":"%s"}' % (b"x" * 300)) + frame(RECORDS[2])

    for length in range(len(written) - len(frame(RECORDS[2]))):
        sealed = abandoned(tmp_path, before + written[:length])
        recover(tmp_path)

        assert (whole(sealed) if num_before else sealed.exists()) == (RECORDS[:num_before] or False)


@pytest.mark.parametrize("number", [-1, 0, 1, 2], ids=["magic", "first", "middle", "last"])
@pytest.mark.parametrize("at", [3, 6, 12], ids=["length", "checksum", "payload"])
def test_what_a_dead_process_wrote_is_kept_and_is_not_whole_where_a_byte_of_it_was_altered(
    tmp_path: Path, number: int, at: int
) -> None:
    altered = bytearray(WHOLE)
    altered[len(MAGIC) + number * len(frame(RECORDS[0])) + at] ^= 1
    sealed = abandoned(tmp_path, bytes(altered))

    recover(tmp_path)

    assert sealed.read_bytes().rstrip(b"\0") == altered
    assert whole(sealed) is None


def test_a_living_process_seals_all_that_it_acknowledged_also_where_a_byte_was_altered(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    log.write(RECORDS)
    [begun] = tmp_path.glob("*.open")
    with begun.open("r+b") as file:
        file.seek(len(WHOLE) - 2)
        file.write(b"X")

    log.close()

    [sealed] = sealed_segments(tmp_path)
    assert sealed.stat().st_size == len(WHOLE)
    assert whole(sealed) is None


def test_a_folder_is_recovered_while_others_begin_segments_in_it(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", BEGINNER, str(tmp_path)]) for _ in range(2)]

    while any(writer.poll() is None for writer in writers):
        recover(tmp_path)

    assert [writer.returncode for writer in writers] == [0, 0]


def test_a_segment_that_disappears_keeps_nobody_from_writing_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = DecisionLog(tmp_path, max_age_s=0)  # a segment for each write
    [begun] = tmp_path.glob("*.open")
    begun.unlink()

    for number in range(3):
        log.write([b'{"number":%d}' % number])
    still_open = [fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd).startswith(str(tmp_path))]
    log.close()

    assert records(tmp_path) == [b'{"number":0}', b'{"number":1}', b'{"number":2}']
    assert len(still_open) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "a segment of the log cannot be sealed: FileNotFoundError"
    ]


def test_the_zeros_ahead_are_no_records_and_do_not_stay(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    log.write([b'{"number":1}'])

    [begun] = tmp_path.glob("*.open")
    reserved, found = begun.stat().st_size, list(read_segment(begun))
    log.close()
    [sealed] = sealed_segments(tmp_path)

    assert reserved >= 1 << 20
    assert found == [b'{"number":1}']
    assert sealed.stat().st_size < 100
    assert whole(sealed) == [b'{"number":1}']
