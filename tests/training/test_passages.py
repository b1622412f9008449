"""What a record says, cut into what is scored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.passages import MAX_CHARACTERS, cut, passages
from training.text import normalise

TEXTS = st.text(st.sampled_from("ab é价1 \n"), max_size=3 * MAX_CHARACTERS)


@given(TEXTS)
def test_cutting_loses_nothing_and_keeps_to_the_limit(text: str) -> None:
    pieces = cut(text)

    assert "".join(pieces) == text
    assert all(len(piece) <= MAX_CHARACTERS for piece in pieces)


def test_a_text_is_cut_between_words() -> None:
    pieces = cut("stone " * 2000)

    assert len(pieces) > 1
    assert all(piece.split() == ["stone"] * len(piece.split()) for piece in pieces)


@given(st.text(max_size=60))
def test_a_conversation_of_one_turn_is_its_text(text: str) -> None:
    assert passages([{"role": "user", "content": text}]) == passages(text)


def test_what_one_role_spreads_over_turns_is_read_together() -> None:
    turns = [
        {"role": "user", "content": "first half"},
        {"role": "assistant", "content": "go on"},
        {"role": "user", "content": "second half"},
    ]

    assert passages(turns) == [normalise("first half\nsecond half"), "go on"]


def test_a_conversation_without_a_turn_is_an_empty_text() -> None:
    assert passages([]) == [""]


def test_a_turn_without_content_is_named() -> None:
    with pytest.raises(ValueError, match="turn 1 is a dict; it must hold a role and a content"):
        passages([{"role": "user", "content": "hello"}, {"role": "user", "text": "hello"}])
