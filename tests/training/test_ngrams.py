"""The vectorised hash against a plain one."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.ngrams import BYTE_NGRAMS, MIXER, PRIME, SHIFT, WORD, WORD_PAIR, hash_ngrams

NUM_BUCKETS = 1 << 16
WRAP = (1 << 64) - 1
TEXTS = st.lists(st.text(st.characters(codec=None), max_size=40), max_size=6)


def poly(values: bytes) -> int:
    hashed = 0
    for byte in values:
        hashed = (hashed * int(PRIME) + byte + 1) & WRAP
    return hashed


def bucket(hashed: int, seed: int) -> int:
    mixed = ((hashed + seed) * int(MIXER)) & WRAP
    return (mixed ^ (mixed >> int(SHIFT))) & (NUM_BUCKETS - 1)


def plain_bag(text: str) -> list[int]:
    doc = b" " + text.lower().encode(errors="replace") + b" "
    ids = [bucket(poly(doc[i : i + k]), k) for k in BYTE_NGRAMS for i in range(len(doc) - k + 1)]
    words = [poly(word[::-1]) for word in bytes(b if b > 32 else 32 for b in doc).split()]
    pairs = [(first * int(PRIME) + second) & WRAP for first, second in itertools.pairwise(words)]
    return sorted({*ids, *(bucket(word, WORD) for word in words), *(bucket(pair, WORD_PAIR) for pair in pairs)})


@given(TEXTS)
def test_hashing_a_batch_equals_a_plain_loop(texts: list[str]) -> None:
    ids, sizes = hash_ngrams(texts, num_buckets=NUM_BUCKETS)

    bags = [bag.tolist() for bag in np.split(ids, np.cumsum(sizes)[:-1])] if texts else []
    assert bags == [plain_bag(text) for text in texts]


def test_long_words_differ_after_their_first_hundred_bytes() -> None:
    words = ["a" * 300 + "bcdefgh" + "a" * 300, "a" * 300 + "bcdefgha" + "a" * 300]

    ids, sizes = hash_ngrams(words, num_buckets=NUM_BUCKETS)

    first, second = (set(bag.tolist()) for bag in np.split(ids, np.cumsum(sizes)[:-1]))
    assert [len(first - second), len(second - first)] == [1, 1]  # the words themselves: their other n-grams are equal
