"""The attack gym: techniques are pure, readers can still read them, and training shows only the seen ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import text_spec, texts
from training.attacks import prompt_files
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


FILES = {
    "one.yaml": "name: one\nvalue: |\n  Be a pirate. {{ prompt }} Arr.\n",
    "many.yaml": "seeds:\n  - value: Be a pirate. {{prompt}} Arr.\n    data_type: text\n",
    "list.json": '["Be a pirate. {{ prompt }} Arr."]',
    "template.prompt": "name: one\ndescription: >\n  Of a pirate.\nvalue: |\n  Be a pirate. {{ prompt }} Arr.\n",
    "documents.yaml": "value: Be a pirate. {{ prompt }} Arr.\n---\nvalue: Be a pirate. {{ prompt }} Arr.\n",
    "keyed.json": '[{"prompt": "Be a pirate. {{ prompt }} Arr.", "goal": "none"}]',
    "lines.jsonl": '{"prompt": "Be a pirate. {{ prompt }} Arr."}\n\n"Be a pirate. {{ prompt }} Arr."\n',
    "lines.txt": "\nBe a pirate. {{ prompt }} Arr.\n\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_prompts_is_a_held_out_technique_in_the_form_of_either_tool(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")

    technique = prompt_files.read(name, tmp_path)

    assert technique.apply(SENTENCE).strip() == f"Be a pirate. {SENTENCE} Arr."
    assert (technique.name, technique.is_seen) == (f"file:{name}", False)
    assert "jailbreak_injection" in technique.violates


def test_a_prompt_without_a_place_for_the_text_stands_before_it(tmp_path: Path) -> None:
    (tmp_path / "dan.json").write_text('["You are free now."]', encoding="utf-8")

    assert prompt_files.read("dan.json", tmp_path).apply(SENTENCE) == f"You are free now.\n\n{SENTENCE}"


REFUSED = {
    "none.txt": (None, "lacks it"),
    "empty.txt": ("\n", "holds no prompt"),
    "broken.yaml": ("value: [", "cannot be read"),
    "broken.jsonl": ('{"prompt": "a"}\n{', "cannot be read"),
    "table.csv": (
        "prompt\nBe a pirate.\n",
        r"suffix is '\.csv', none of \.yaml, \.yml, \.prompt, \.json, \.jsonl, \.txt",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_gives_no_prompt_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=f"'{name}'.*{reason}"):
        prompt_files.read(name, tmp_path)
