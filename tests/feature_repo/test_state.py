"""A state answers as plain loops over its facts do, in whatever order they came and however often it was kept."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.answer import Answers
from feature_repo.state import TAIL, Fact, Shape, State, hash64
from feature_repo.view import DAY, HOUR, MINUTE, SECOND
from feature_repo.windows import VIEWS
from tests.feature_repo.brute_force import features

NOON = 1_700_006_400_000_000 + 12 * HOUR
BACK = st.sampled_from([0, 1, MINUTE, HOUR, DAY, 7 * DAY, 30 * DAY]) | st.integers(0, HOUR) | st.integers(0, 31 * DAY)
FACTS = st.lists(
    st.tuples(BACK, st.integers(0, 10**9), st.none() | st.sampled_from("xyz"), st.booleans()), max_size=2 * TAIL
)
WINDOWED = [name for name, view in VIEWS.items() if view.template == "windows"]


@pytest.mark.parametrize("name", WINDOWED)
@settings(max_examples=25, deadline=None)
@given(facts=FACTS, moments=st.lists(st.integers(-3 * DAY, DAY) | st.sampled_from([0, -MINUTE, -1, 1]), min_size=1))
def test_a_state_equals_plain_loops_at_every_moment_that_it_can_resolve(
    name: str, facts: list[tuple[int, int, str | None, bool]], moments: list[int]
) -> None:
    view, shape = VIEWS[name], Shape(VIEWS[name])
    state, rows = State(shape), []
    for number, (back_us, amount, value, is_kept) in enumerate(facts):
        us, sums, values = NOON - back_us, dict.fromkeys(view.sums, amount), dict.fromkeys(view.values, value)
        rows.append({"us": us, "known_us": us, **sums, **values})
        hashed = tuple(v and hash64(v) for v in values.values())
        state.push(Fact(us, number, tuple(sums.values()), hashed))
        if is_kept:
            state = kept(state)
    words = memoryview(state.to_bytes()[0]).cast("q")

    for moment in moments:
        at_us = NOON + moment
        if at_us > state.settled_us:
            then_us = max(at_us, state.last_us - DAY)
            expected = features(view, rows, at_us=then_us, created_us=then_us)
            assert dict(zip(expected, Answers(view).at(words, at_us), strict=True)) == expected


def test_running_totals_of_over_63_bits_are_kept_and_leave_every_sum_right() -> None:
    view, amount = VIEWS["account_payments"], 2**58 - 1
    state, rows = State(Shape(view)), []
    for number in range(60):
        us = NOON + number * HOUR
        state = kept(state) if state.push(Fact(us, number, (amount, amount), (1,))) else state
        rows.append({"us": us, "known_us": us, "amount_micros": amount, "amount_square": amount, "card_id": "c"})
    words = memoryview(state.to_bytes()[0]).cast("q")

    for at_us in (NOON + hours * HOUR + 1 for hours in (40, 59, 30 * 24)):
        expected = features(view, rows, at_us=at_us, created_us=at_us)
        assert dict(zip(expected, Answers(view).at(words, at_us), strict=True)) == expected


def kept(state: State) -> State:
    """What a store gives back."""
    words, seen = (memoryview(content).cast("q") for content in state.to_bytes())
    return State.from_words(state.shape, words, seen)


def test_a_moment_before_the_facts_that_are_kept_one_by_one_is_answered_as_the_first_that_can_be() -> None:
    view = VIEWS["account_payments"]
    state = State(Shape(view))
    for number in range(TAIL + 10):
        state.push(Fact(NOON + number * SECOND, number, (1, 1), (1,)))

    words = memoryview(state.to_bytes()[0]).cast("q")
    answer = dict(zip((f.name for f in view.features), Answers(view).at(words, NOON), strict=True))

    assert answer["num_payments_1d"] == 10
    assert answer["seconds_since_payment"] == 1e-6


def test_a_fact_before_the_horizon_is_the_lakes() -> None:
    state = State(Shape(VIEWS["account_payments"]), horizon_us=NOON)

    assert not state.push(Fact(NOON - 1, 1, (1, 1), (1,)))
    assert state.push(Fact(NOON, 2, (1, 1), (1,)))


def test_reading_and_pushing_need_neither_feast_nor_a_query_engine() -> None:
    heavy = "{'feast', 'duckdb', 'pandas', 'pyarrow', 'torch', 'numpy', 'jinja2'}"
    program = (
        "import sys, feature_repo.online, feature_repo.push, feature_repo.states_redis, feature_repo.states_sqlite\n"
        f"print({heavy} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
