"""One function from record to model input, for training and for serving."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import behaviour_spec, payments, text_spec, texts
from training.detector import Ratio
from training.encoder import Encoder, QuantileNormal
from training.reader import NGRAMS

ROWS = payments(400)
ENCODER = Encoder.fit(ROWS, behaviour_spec())
VALUES = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(10**9), 10**9))


@given(VALUES, VALUES, VALUES, st.one_of(st.none(), st.text(max_size=5)))
def test_any_record_encodes_to_finite_bounded_numbers(amount: Any, mean: Any, count: Any, plan: Any) -> None:
    row = {"amount": amount, "mean_amount_7d": mean, "num_payments_1d": count, "plan": plan}

    dense = ENCODER.encode([row]).dense

    assert dense.shape == (1, ENCODER.width)
    assert np.abs(dense).max() <= 4


def test_a_table_and_its_records_encode_alike() -> None:
    assert (ENCODER.encode(ROWS).dense == ENCODER.encode(ROWS.to_pylist()).dense).all()


def test_a_stored_encoder_encodes_alike() -> None:
    again = Encoder.from_json(ENCODER.to_json())

    assert again == ENCODER
    assert (again.encode(ROWS).dense == ENCODER.encode(ROWS).dense).all()


def test_numbers_become_standard_normal() -> None:
    amounts = ENCODER.encode(ROWS).dense[:, 0]

    assert abs(amounts.mean()) < 0.05
    assert abs(amounts.std() - 1) < 0.05


def test_a_tail_is_told_apart_as_finely_as_the_middle() -> None:
    normal = NormalDist()
    amounts = np.exp([normal.inv_cdf(rank) for rank in (np.arange(100_000) + 0.5) / 100_000])

    scale = QuantileNormal.fit(amounts)

    scores = scale.apply(np.exp(np.array([-3.7, -1.0, 0.0, 1.0, 3.2, 3.7])))
    assert np.abs(scores - [-3.7, -1.0, 0.0, 1.0, 3.2, 3.7]).max() < 0.02


def test_a_ratio_can_take_the_root_of_a_mean_square() -> None:
    root = Ratio(name="rms", numerator="square", denominator="mean", is_square=True)
    spec = behaviour_spec().model_copy(update={"numbers": ["square", "mean"], "ratios": [root], "categories": []})
    rows = [{"square": float(size**2), "mean": 1.0} for size in range(1, 200)]

    quantiles = Encoder.fit(rows, spec).numbers["rms"].values

    assert (quantiles[0], quantiles[-1]) == (0.5, 199 / 2)


def test_a_missing_number_is_zero_and_flagged() -> None:
    row = {"amount": 3.0, "mean_amount_7d": None, "num_payments_1d": 1, "plan": "free"}

    dense = ENCODER.encode([row]).dense[0]

    names = list(ENCODER.numbers)
    missing = {name for name, flag in zip(names, dense[len(names) :], strict=False) if flag}
    assert missing == {"mean_amount_7d", "amount_to_mean"}
    assert dense[names.index("mean_amount_7d")] == 0


def test_a_category_never_seen_gets_the_bucket_of_the_unseen() -> None:
    rows = [{"amount": 1, "mean_amount_7d": 1, "num_payments_1d": 1, "plan": plan} for plan in ("free", "imperial")]

    assert ENCODER.encode(rows).dense[:, -1].tolist() == [1, 0]


def test_a_text_encodes_alike_alone_and_in_a_batch() -> None:
    encoder = Encoder.fit(texts(50), text_spec())
    rows = [*texts(50).to_pylist(), {"text": ""}, {"text": "x"}]

    batch = encoder.encode(rows)

    for at, row in enumerate(rows):
        assert encoder.encode([row]).bags[NGRAMS].ids.tolist() == batch.take(np.array([at])).bags[NGRAMS].ids.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "12"}, "'amount' holds a str"),
        ({"amount": ...}, "'amount' holds a ellipsis"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(change: dict[str, Any], message: str) -> None:
    row = {"amount": 1.0, "mean_amount_7d": 1.0, "num_payments_1d": 1, "plan": "free"} | change

    with pytest.raises(ValueError, match=message):
        ENCODER.encode([row])


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="row 0 lacks 'mean_amount_7d'"):
        ENCODER.encode([{"amount": 1.0}])
    with pytest.raises(ValueError, match="column 'amount' is missing"):
        ENCODER.encode(ROWS.drop_columns("amount"))
    with pytest.raises(ValueError, match="row 0: 'text' is a NoneType"):
        Encoder.fit(texts(50), text_spec()).encode([{"text": None}])
