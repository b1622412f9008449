"""The attack gym: techniques are pure, readers can still read them, and training shows only the seen ones."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import text_spec, texts
from training.attacks.augment import augment
from training.attacks.registry import TECHNIQUES
from training.detector import DetectorSpec
from training.text import normalise

SENTENCE = "Can you bring the yellow parcel from the station to my sister before noon"
UNDONE = ("base64", "diacritics", "encodings", "styled_letters", "zero_width")
SEEN = [name for name, technique in TECHNIQUES.items() if technique.is_seen]


@pytest.mark.parametrize("name", TECHNIQUES)
@settings(max_examples=30)
@given(text=st.text(max_size=80), seed=st.integers(0, 5))
def test_a_technique_is_a_pure_function_of_text_and_seed(name: str, text: str, seed: int) -> None:
    first, second = (TECHNIQUES[name].apply(text, seed=seed) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_changes_a_sentence_and_says_where_it_is_from(name: str) -> None:
    technique = TECHNIQUES[name]

    changed = {technique.apply(SENTENCE, seed=seed) for seed in range(5)}

    assert changed != {SENTENCE}
    assert name in str(technique.rewrite.__module__) or name == "base64"


@pytest.mark.parametrize("name", UNDONE)
def test_the_normaliser_undoes_what_only_changes_how_letters_are_written(name: str) -> None:
    disguised = [TECHNIQUES[name].apply(SENTENCE, seed=seed) for seed in range(30)]

    assert {normalise(text) for text in disguised} == {normalise(SENTENCE)}


def test_training_shows_seen_techniques_alone_and_to_harmful_and_benign_texts_alike() -> None:
    rows, spec = texts(2000), text_spec(disguised_share=0.5)

    shown = augment(rows, spec)

    added = shown.slice(len(rows))
    originals = dict(zip(rows["event_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    pairs = list(zip(added["event_id"].to_pylist(), added["text"].to_pylist(), strict=True))
    is_bare = [
        any(text == TECHNIQUES[name].apply(originals[event_id], seed=spec.fit.seed) for name in SEEN)
        for event_id, text in pairs
    ]
    is_inside = [
        any(TECHNIQUES[name].apply(originals[event_id], seed=spec.fit.seed) in text for name in SEEN)
        for event_id, text in pairs
    ]
    assert shown.slice(0, len(rows)).equals(rows)
    assert 900 < len(added) < 1100
    assert all(is_inside)
    assert 0.45 < np.mean(is_bare) < 0.55
    assert abs(_share_of_spam(added) - _share_of_spam(rows)) < 0.04


def test_a_disguise_that_breaks_a_rule_is_shown_with_that_label_and_leaves_the_others_as_they_are() -> None:
    rows = texts(2000).append_column("jailbreak_injection", pa.array(np.zeros(2000, np.int8)))
    spec = text_spec(disguised_share=0.5).model_copy(update={"labels": ["fraud_spam", "jailbreak_injection"]})
    jailbreak = TECHNIQUES["jailbreak"]
    originals = {row["event_id"]: row for row in rows.to_pylist()}

    added = augment(rows, spec).slice(len(rows)).to_pylist()

    framed = [jailbreak.apply(originals[row["event_id"]]["text"], seed=spec.fit.seed) in row["text"] for row in added]
    assert any(framed)
    assert [row["jailbreak_injection"] for row in added] == framed
    assert all(row["fraud_spam"] == originals[row["event_id"]]["fraud_spam"] for row in added)


def test_augmentation_depends_on_the_seed_alone_and_is_off_unless_asked_for() -> None:
    rows = texts(300)

    def shown(spec: DetectorSpec) -> pa.Table:
        return augment(rows, spec)

    assert shown(text_spec(disguised_share=0.5)).equals(shown(text_spec(disguised_share=0.5)))
    assert not shown(text_spec(disguised_share=0.5)).equals(shown(text_spec(disguised_share=0.5, seed=8)))
    assert shown(text_spec()) is rows


def _share_of_spam(rows: pa.Table) -> float:
    return float(np.mean(rows["fraud_spam"].to_numpy()))
