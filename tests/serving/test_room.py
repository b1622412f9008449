import heapq

from serving.room import Room


def goodput(room: Room, *, capacity: float, offered: float, seconds: float) -> tuple[float, int]:
    """Answers in time per second, and most inside, of a server that takes one request after the other."""
    now, free_at, good, most = 0.0, 0.0, 0, 0
    leaving: list[tuple[float, float]] = []
    room.clock = lambda: now
    for number in range(int(offered * seconds)):
        arrival = number / offered
        while leaving and leaving[0][0] <= arrival:
            now, entered = heapq.heappop(leaving)
            room.leave(entered)
        now = arrival
        if (entered := room.enter()) is not None:
            free_at = max(free_at, now) + 1 / capacity
            good += free_at - now <= 1.0
            heapq.heappush(leaving, (free_at, entered))
        most = max(most, room.num_inside)
    return good / seconds, most


def test_at_five_times_what_a_slow_server_can_take_it_answers_in_time_what_it_can() -> None:
    answered, _ = goodput(Room(), capacity=100, offered=500, seconds=60)

    assert answered >= 90


def test_a_fast_server_gets_room_and_the_room_is_bounded() -> None:
    room = Room()

    answered, most = goodput(room, capacity=2000, offered=10_000, seconds=20)

    assert answered >= 1800
    assert most <= room.most


def test_quiet_traffic_never_meets_the_limit() -> None:
    answered, most = goodput(Room(), capacity=1000, offered=500, seconds=10)

    assert answered == 500
    assert most <= 2
