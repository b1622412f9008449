from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.benign import SuiteMissing, read_suite

BAD: dict[str, tuple[dict[str, list[object]], str]] = {
    "no benign row": ({"text": ["a"], "label": [1]}, "no text of the split 'test' with label 0"),
    "no row of the test": ({"text": ["a"], "split": ["train"]}, "no text of the split 'test' with label 0"),
    "a label in words": ({"text": ["a"], "label": ["safe"]}, "cannot be read: .*'safe'"),
    "a split in numbers of a list": ({"text": ["a"], "split": [[1]]}, "cannot be read"),
    "no text": ({"prompt": ["a"]}, "cannot be read: .*text"),
}


def write_suite(data: Path, columns: dict[str, list[object]]) -> None:
    (data / "ours").mkdir()
    pq.write_table(pa.table(columns), data / "ours" / "data.parquet")


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_gives_no_benign_text_is_missing_and_says_why(name: str, tmp_path: Path) -> None:
    columns, reason = BAD[name]
    write_suite(tmp_path, columns)

    with pytest.raises(SuiteMissing, match=f"'ours' .*{reason}"):
        read_suite("ours", tmp_path)


def test_a_file_that_is_no_parquet_is_missing(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "data.parquet").write_text("text\na\n", encoding="utf-8")

    with pytest.raises(SuiteMissing, match="'ours' cannot be read"):
        read_suite("ours", tmp_path)


@pytest.mark.parametrize("labels", [[0, 1, 0], [False, True, False], ["0", "1", "0"]])
def test_the_benign_texts_of_a_file_are_read(labels: list[object], tmp_path: Path) -> None:
    write_suite(tmp_path, {"text": ["a", "b", None], "label": labels})

    assert read_suite("ours", tmp_path) == ["a"]
