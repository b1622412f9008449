import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import text_spec, texts, write_run
from training import near_duplicates

LIMIT = 0.9


def similarity(one: str, other: str) -> float:
    """Jaccard of the sets of five characters."""
    ours, theirs = ({text[at : at + 5] for at in range(len(text) - 4)} for text in (one, other))
    return len(ours & theirs) / len(ours | theirs)


def pairs(num_pairs: int) -> list[tuple[str, str]]:
    """Texts of 150 words, each beside itself with one to six words changed."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("bcdfghjkmnpqrtuvwxyz"), 6)) for _ in range(3000)]
    made = []
    for _ in range(num_pairs):
        one = rng.choice(words, 150).tolist()
        other = list(one)
        for at in rng.choice(150, rng.integers(1, 7), replace=False):
            other[at] = str(rng.choice(words))
        made.append((" ".join(one), " ".join(other)))
    return made


def found(run_dir: Path, splits: dict[str, list[str]]) -> dict[str, str]:
    """What a run leaves out, and what each repeats; an event is named by its split and place."""
    rows = [
        {"event_id": f"{split}-{at}", "split": split, "text": text}
        for split, texts in splits.items()
        for at, text in enumerate(texts)
    ]
    write_run(run_dir, text_spec().model_copy(update={"max_similarity": LIMIT}), rows=pa.Table.from_pylist(rows))
    near_duplicates.find(run_dir)
    stored = pq.read_table(run_dir / near_duplicates.STORED).to_pylist()
    return {row["event_id"]: row["repeats"] for row in stored}


def test_pairs_just_above_the_limit_are_found_and_none_below(tmp_path: Path) -> None:
    made = pairs(200)
    above = {f"train-{at}": f"test-{at}" for at, pair in enumerate(made) if similarity(*pair) >= LIMIT}

    left_out = found(tmp_path / "run", {"train": [b for _, b in made], "test": [a for a, _ in made]})

    assert 100 < len(above) < 200
    assert left_out.items() <= above.items()
    assert len(left_out) >= 0.98 * len(above)


@pytest.mark.parametrize("num_copies", [1, 50])
def test_a_row_stays_in_the_most_protected_split_that_has_its_text(num_copies: int, tmp_path: Path) -> None:
    text = pairs(1)[0][0]

    left_out = found(tmp_path / "run", {"train": [text], "validation": [text], "test": [text] * num_copies})

    assert left_out == {"train-0": "test-0", "validation-0": "test-0"}


def test_whoever_trains_without_having_looked_is_told(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", text_spec().model_copy(update={"max_similarity": LIMIT}), rows=texts())
    commands = {"fit": ["training", str(run_dir), "--dry-run"], "find": ["training.near_duplicates", str(run_dir)]}

    said = [
        subprocess.run([sys.executable, "-m", *commands[name]], capture_output=True, text=True, check=True).stderr
        for name in ("fit", "find", "fit")
    ]

    assert [f"python -m training.near_duplicates {run_dir}" in one for one in said] == [True, False, False]
