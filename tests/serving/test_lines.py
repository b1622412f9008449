from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import lines
from serving.lines import Batch, Batches


def cut(chunks: Sequence[bytes]) -> list[Batch]:
    batches = Batches()
    return [*(batch for chunk in chunks for batch in batches.add(chunk)), *batches.end()]


@given(st.lists(st.binary(max_size=8) | st.just(b"ab\n"), max_size=30))
def test_lines_are_the_same_wherever_the_chunks_are_cut_and_keep_to_one_limit(chunks: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE", 5)
        patch.setattr(lines, "MOST_LINES", 3)
        patch.setattr(lines, "MOST_BYTES", 8)

        batches = cut(chunks)

    whole = b"".join(chunks).split(b"\n")
    kept = [(number, line[:6]) for number, line in enumerate(whole, 1) if line.strip() or len(line) > 5]
    assert [line for batch in batches for line in batch] == kept
    assert all(1 <= len(batch) <= 3 for batch in batches)
    assert all(len(batch) == 1 or sum(len(line) for _, line in batch) <= 8 for batch in batches)


def test_long_lines_go_on_in_batches_of_few() -> None:
    batches = cut([b"x" * 100_000 + b"\n"] * 5)

    assert [len(batch) for batch in batches] == [2, 2, 1]
