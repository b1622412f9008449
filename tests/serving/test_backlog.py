import threading

from serving.backlog import Backlog


def test_what_comes_together_is_done_in_one_call_and_in_order() -> None:
    done: list[list[int]] = []
    backlog = Backlog[int]("test", done.append, gather_s=0.2)

    for item in range(50):
        backlog.put(item)
    backlog.close()

    assert done == [list(range(50))]


def test_what_does_not_fit_is_dropped_and_counted_and_a_failure_ends_nothing() -> None:
    may_go, done = threading.Event(), list[int]()

    def work(items: list[int]) -> None:
        may_go.wait(10)
        done.extend(items)
        raise OSError("the store is gone")

    backlog = Backlog[int]("test", work, max_waiting=3, max_batch=1, gather_s=0.0)
    for item in range(10):
        backlog.put(item)
    num_dropped = backlog.num_dropped
    may_go.set()
    backlog.close()

    assert num_dropped in (6, 7)  # the thread may have taken one already
    assert len(done) == backlog.num_failed == 10 - num_dropped
