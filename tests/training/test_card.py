"""Every number on the evaluation card is recomputed from the stored predictions of really trained runs."""

import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.training.conftest import behaviour_spec, payments, sourced_texts, text_spec, write_run
from tests.training.recompute import recomputed_texts, stored_evaluation
from training import card, near_duplicates
from training.detector import DetectorSpec, Gate
from training.evaluate import evaluate_run
from training.export import complete
from training.fit import fit
from training.gate import Verdict
from training.policy import Promise
from training.unseen_sources import train_folds


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of texts with sources left out, suites of benign texts and near-duplicates."""
    changes = {
        "labels": ["fraud_spam", "harassment"],
        "promises": {"fraud_spam": Promise(limit=0.05), "harassment": Promise(limit=0.05)},
        "unseen_sources": ["honeypot", "mail"],
        "gate": Gate(benign_suites={"money_matters": 0.2, "everyday": 0.1}, min_positives=15),
    }
    spec = text_spec(disguised_share=0.4, max_epochs=4).model_copy(update=changes)
    run_dir = write_run(tmp_path_factory.mktemp("card") / "texts", spec, rows=sourced_texts(4000))
    near_duplicates.find(run_dir)
    fit(run_dir)
    complete(run_dir / "bundle")
    train_folds(run_dir, train=fit)
    evaluate_run(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def payment_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of payments beside a champion that learned less."""
    promises = {"fraud": Promise(limit=0.05), "trial_abuse": Promise(limit=0.05)}
    folder, changes = tmp_path_factory.mktemp("card"), {"promises": promises, "slices": ["plan"]}
    for name, rate in (("champion", 2e-4), ("payments", 2e-3)):
        spec = behaviour_spec(max_epochs=3, learning_rate=rate).model_copy(update=changes)
        run_dir = write_run(folder / name, spec, rows=payments(4000))
        fit(run_dir)
        complete(run_dir / "bundle")
        if name == "payments":
            entry = {"path": str(folder / "champion" / "bundle"), "digest": "c0ffee" * 10}
            (run_dir / "champion.json").write_text(json.dumps(entry))
        evaluate_run(run_dir)
    return folder / "payments"


def table_rows(card: str) -> list[str]:
    """The rows of all tables below their heads, from the costs on."""
    lines = card[card.index("## What it costs") : card.index("## Plots")].splitlines()
    heads = {at - 1 for at, line in enumerate(lines) if line.startswith("|---")}
    return [line for at, line in enumerate(lines) if line.startswith("|") and at not in heads and "|---" not in line]


@pytest.mark.parametrize("kind", ["text_run", "payment_run"])
def test_every_number_on_the_card_is_recomputed(kind: str, request: pytest.FixtureRequest) -> None:
    run_dir = request.getfixturevalue(kind)
    card = (run_dir / "card.md").read_text(encoding="utf-8")
    expected = set(re.findall(r"-?[\d.,]*\d(?:e-?\d+)?", " ".join(recomputed_texts(run_dir))))

    shown = {
        number for row in table_rows(card) for number in re.findall(r"(?<![\w.-])-?\d(?:[\d,.]*\d)?(?:e-?\d+)?", row)
    }

    assert len(shown) > 100
    assert sorted(shown - expected) == []


def test_the_card_of_a_text_detector_holds_every_section(text_run: Path) -> None:
    page = (text_run / "card.html").read_text(encoding="utf-8")

    headings = re.findall(r"<h2>(.*?)</h2>", page)

    assert headings == [
        "What changes against the champion",
        "What it costs legitimate users",
        "Promises",
        "Attacks, with their benign twins",
        "Benign suites",
        "Labels, on the test split",
        "Slices furthest below their label",
        "Does it know the rule, or where the row is from?",
        "What a violation is taken for",
        "Calibration and thresholds",
        "Gate",
        "Data",
    ]
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert str(text_run) not in page


def test_a_source_that_was_left_out_is_known_worse_than_with_it(text_run: Path) -> None:
    found = {(one.source, one.label): one for one in stored_evaluation(text_run).unseen_sources}

    assert {source for source, _ in found} == {"honeypot", "mail"}
    for one in found.values():
        if one.num_positives < 15:
            assert one.why == "fewer than 15 violations"
            continue
        assert one.average_precision is not None
        assert one.average_precision_seen is not None
        assert one.average_precision.low <= one.average_precision_seen.high


def test_a_source_gives_its_label_away_and_the_card_says_how_much(text_run: Path) -> None:
    by_column = {one.column: one for one in stored_evaluation(text_run).shortcuts}

    source, kind = by_column["source"].column_alone, by_column["kind"].column_alone
    assert source is not None
    assert kind is not None
    assert source.low > kind.high


def shape_of(page: str) -> list[str]:
    """The kinds of everything in a page of Markdown but its text."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    return [one.type for token in tokens for one in (token, *(token.children or ())) if one.type != "text"]


def test_a_name_from_data_forges_nothing_on_the_card(payment_run: Path, tmp_path: Path) -> None:
    spec = DetectorSpec.model_validate_json((payment_run / "detector.json").read_bytes())
    evaluation = stored_evaluation(payment_run)
    shapes = []
    for value in ("free", "x | 1 of 1 | 1.000 |\n\n# Approved\n\n<b>*[so](it:is)*</b> `\\|`"):
        slices = [one.model_copy(update={"value": value}) for one in evaluation.slices]
        verdict = Verdict(passed=True, reason=value, criteria=[])
        card.write(tmp_path, spec, evaluation=evaluation.model_copy(update={"slices": slices}), verdict=verdict)
        page = (tmp_path / "card.md").read_text(encoding="utf-8")
        shapes.append([kind for kind in shape_of(page) if kind != "text_special"])

    assert any(kind == "td_open" for kind in shapes[0])
    assert shapes[1] == shapes[0]
    assert "# Approved" not in page.splitlines()
