import os
import signal
import time
from pathlib import Path

from serving.known import Known
from serving.pushing import Pushes


def payment(number: int) -> dict[str, object]:
    event = {"event_id": f"p{number}", "event_us": now_us() - 1_000_000, "account_id": "a", "card_id": "c"}
    return {**event, "merchant_id": "m", "amount": 9.0, "arrived_us": now_us()}


def now_us() -> int:
    return time.time_ns() // 1000


def known(home: Path) -> int:
    """How many payments of the last day are known of the card's account."""
    reader = Known(home, {}).reader("payment_v2")
    return reader.read([payment(-1)], [now_us()])[0].values["num_payments_1d"]


def wait_for(pushes: Pushes, number: int) -> int:
    end_s = time.monotonic() + 30
    while pushes.num_lost < number and time.monotonic() < end_s:
        time.sleep(0.02)
    return pushes.num_lost


def test_what_was_left_before_the_end_counts_once(tmp_path: Path) -> None:
    pushes = Pushes(tmp_path, {})

    for number in (*range(300), *range(50)):
        pushes.put("payments", payment(number))
    pushes.close()

    assert (known(tmp_path), pushes.num_lost) == (300, 0)


def test_what_the_store_does_not_take_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "feast").write_text("no folder")
    pushes = Pushes(tmp_path, {})

    pushes.put("payments", payment(1))
    lost = wait_for(pushes, 1)
    (tmp_path / "feast").unlink()
    pushes.put("payments", payment(2))
    pushes.close()

    assert (lost, known(tmp_path)) == (1, 1)


def test_a_killed_process_is_started_again_after_a_while_and_what_came_meanwhile_is_counted(tmp_path: Path) -> None:
    pushes = Pushes(tmp_path, {})
    pushes.put("payments", payment(1))
    while not known(tmp_path):
        time.sleep(0.02)
    assert pushes._process

    pushes._not_before_s = float("inf")
    pushes._process.kill()
    pushes._process.wait()
    pushes.put("payments", payment(2))
    lost = wait_for(pushes, 1)
    pushes._not_before_s = 0.0
    pushes.put("payments", payment(3))
    pushes.close()

    assert (lost, pushes.num_lost, known(tmp_path)) == (1, 1, 2)


def test_a_process_that_hangs_keeps_nobody_from_leaving_events_or_from_the_end(tmp_path: Path) -> None:
    pushes = Pushes(tmp_path, {})
    pushes.put("payments", payment(0))
    while not known(tmp_path):
        time.sleep(0.02)
    assert pushes._process
    os.kill(pushes._process.pid, signal.SIGSTOP)

    began_s = time.monotonic()
    for number in range(1, 5000):  # more than the backlog and the kernel's pipe hold
        pushes.put("payments", payment(number))
    left_s = time.monotonic()
    pushes.close(timeout_s=1.0)

    assert left_s - began_s < 5
    assert time.monotonic() - left_s < 10
    assert pushes.num_lost > 2000
    assert pushes._process.returncode == -signal.SIGKILL
