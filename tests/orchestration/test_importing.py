"""What comes through the door keeps the lake's contract; what does not is named by row and reason, never by value."""

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from feature_repo.lake import DAY_US, Lake, start_us
from orchestration.importing import import_events, load_mapping
from orchestration.mapping import Mapping
from serving.privacy import pseudonym
from serving.vault import Vault
from tests.orchestration.imports import GOOD, TEXTS, inbox, jsonl

MAPPINGS = sorted((Path(__file__).parents[2] / "orchestration" / "mappings").glob("*.yaml"))
DATA = Path(os.environ.get("MEWS_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def csv(folder: Path, *rows: dict[str, str | None]) -> Path:
    file = folder / "rows.csv"
    lines = [",".join(GOOD), *(",".join(str(row[name] or "") for name in GOOD) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def parquet(folder: Path, *rows: dict[str, str | None]) -> Path:
    file = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


@pytest.mark.parametrize("write", [csv, jsonl, parquet])
def test_a_row_arrives_the_same_from_every_format(lake: Lake, vault: Vault, tmp_path: Path, write: type) -> None:
    report = import_events(lake, write(tmp_path, GOOD), TEXTS, vault=vault)

    noon_us = start_us(lake.days("inbox", "requests")[0]) + DAY_US // 2
    (row,) = inbox(lake)
    assert report.num_accepted == 1
    assert (row["event_id"], row["event_us"], row["arrived_us"]) == ("x1", noon_us, noon_us)
    assert (row["kind"], row["text"], row["num_tokens"]) == ("prompt", "hello", 2)


def test_a_hashed_id_is_the_one_by_which_the_service_knows_it(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    import_events(lake, jsonl(tmp_path, GOOD, {**GOOD, "id": "x2"}), TEXTS, vault=vault)

    assert {row["account_id"] for row in inbox(lake)} == {pseudonym("ann@mail.example", vault)}


def test_a_label_that_is_not_known_makes_no_row(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "id": "x2", "bad": None, "spam": "unsure"}, {**GOOD, "id": "x3", "bad": "0", "spam": "SPAM"}]

    report = import_events(lake, jsonl(tmp_path, *rows), TEXTS, vault=vault)

    said = {(row["event_id"], row["label"]): row["value"] for row in inbox(lake, "labels")}
    assert said == {("x1", "toxic"): 1, ("x1", "fraud_spam"): 0, ("x3", "toxic"): 0, ("x3", "fraud_spam"): 1}
    assert sum(report.labels.values()) == 4


def test_labels_lie_in_the_day_on_which_they_became_known(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    import_events(lake, jsonl(tmp_path, GOOD), TEXTS, vault=vault)

    (event_day,), (label_day,) = lake.days("inbox", "requests"), lake.days("inbox", "labels")

    assert (label_day - event_day).days == 2


@pytest.mark.parametrize(
    ("flaw", "column", "reason"),
    [
        ({"id": None}, "event_id", "null"),
        ({"id": "x" * 65}, "event_id", "too long"),
        ({"id": "secret value"}, "event_id", "not an id"),
        ({"id": "x1"}, "event_id", "repeated"),
        ({"at": "secret"}, "event_us", "not a moment"),
        ({"at": "1960-01-01"}, "event_us", "before 1970"),
        ({"at": "2999-01-01"}, "event_us", "in the future"),
        ({"kind": "secret"}, "kind", "not an allowed value"),
        ({"text": None}, "text", "null"),
        ({"tokens": "secret"}, "num_tokens", "not a number"),
        ({"tokens": None}, "num_tokens", "null"),
        ({"tokens": "-1"}, "num_tokens", "below 0"),
        ({"tokens": "99999999"}, "num_tokens", "above 1e+07"),
        ({"bad": "secret"}, "toxic", "not a known value"),
        ({"spam": "secret"}, "fraud_spam", "not a known value"),
    ],
)
def test_a_bad_row_is_refused_by_number_column_and_class_of_value(
    lake: Lake, vault: Vault, tmp_path: Path, flaw: dict[str, str | None], *, column: str, reason: str
) -> None:
    report = import_events(lake, jsonl(tmp_path, GOOD, {**GOOD, "id": "x2", **flaw}), TEXTS, vault=vault)

    (rejection,) = report.rejections
    assert (rejection.row, rejection.column, rejection.reason) == (2, column, reason)
    assert (report.num_read, report.num_accepted, report.num_rejected) == (2, 1, 1)
    assert "secret" not in repr(report)
    assert [row["event_id"] for row in inbox(lake)] == ["x1"]
    assert {row["event_id"] for row in inbox(lake, "labels")} == {"x1"}


def test_milliseconds_that_are_read_as_seconds_are_refused_row_by_row(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    seconds = Mapping.model_validate({**TEXTS.model_dump(), "time": {"column": "at", "format": "seconds"}})
    rows = [{**GOOD, "at": "1700000000"}, {**GOOD, "id": "x2", "at": "1700000000000"}]
    rows.append({**GOOD, "id": "x3", "at": "253402300799"})  # its labels would be known a day after the last one

    report = import_events(lake, jsonl(tmp_path, *rows), seconds, vault=vault)

    assert [(r.row, r.column, r.reason) for r in report.rejections] == [
        (2, "event_us", "after the year 9999"),
        (3, "event_us", "after the year 9999"),
    ]
    assert [row["event_id"] for row in inbox(lake)] == ["x1"]


def test_an_absurd_number_is_no_moment(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    seconds = Mapping.model_validate({**TEXTS.model_dump(), "time": {"column": "at", "format": "seconds"}})
    rows = [{**GOOD, "id": f"x{i}", "at": at} for i, at in enumerate(["1700000000", "1e30", "-1e30", "1e19"])]

    report = import_events(lake, jsonl(tmp_path, *rows), seconds, vault=vault)

    assert dict(report.reasons) == {("event_us", "not a moment"): 3}
    assert [row["event_id"] for row in inbox(lake)] == ["x0"]


def test_an_event_arrives_after_it_happened_and_before_now(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    arriving = {**TEXTS.model_dump(), "columns": {**TEXTS.model_dump()["columns"], "arrived_us": "bad"}, "labels": {}}
    event_us = 1_772_366_400_000_000  # that of GOOD
    arrivals = [event_us, event_us - 1, 32_472_144_000_000_000]
    rows = [{**GOOD, "id": f"x{i}", "bad": str(at)} for i, at in enumerate(arrivals)]

    report = import_events(lake, jsonl(tmp_path, *rows), Mapping.model_validate(arriving), vault=vault)

    assert [(r.row, r.column, r.reason) for r in report.rejections] == [
        (2, "arrived_us", "before the event"),
        (3, "arrived_us", "in the future"),
    ]


def test_a_folder_is_imported_file_by_file(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    jsonl(folder, GOOD, name="one.jsonl")
    jsonl(folder, {**GOOD, "id": "x2"}, name="two.jsonl")

    report = import_events(lake, folder, TEXTS, vault=vault)

    assert report.num_accepted == len(inbox(lake)) == 2


def test_events_without_times_are_spread_over_the_days_in_the_same_way_each_time(
    lake: Lake, vault: Vault, tmp_path: Path
) -> None:
    spread = {"spread": {"first": "2026-01-01", "last": "2026-01-10"}}
    mapping = Mapping.model_validate({**TEXTS.model_dump(), "time": spread})
    source = jsonl(tmp_path, *({**GOOD, "id": f"x{i}"} for i in range(500)))

    import_events(lake, source, mapping, vault=vault)
    again = import_events(lake, source, mapping, vault=vault)

    assert len(lake.days("inbox", "requests")) == 10
    assert again.num_files_written == 0


def test_a_file_without_a_named_column_is_refused(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,at\nx1,2026-03-01\n")

    with pytest.raises(ValueError, match=r"rows\.csv has no column 'kind'"):
        import_events(lake, file, TEXTS, vault=vault)


def test_a_file_that_cannot_be_read_is_refused_without_its_content(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "secret\n')

    with pytest.raises(ValueError, match=r"rows\.jsonl cannot be read") as refused:
        import_events(lake, file, TEXTS, vault=vault)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"colour": "c"}}, "columns.colour is no column of requests"),
        ({"time": {}}, "exactly one of column and spread"),
        ({"time": {"spread": {"first": "2026-01-02", "last": "2026-01-01"}}}, "must not be before"),
        ({"labels": {"toxic": {"column": "bad", "values": {"yes": 2}}}}, "it must be 0, 1 or null"),
        ({"labels": {"Fraud X": "bad"}}, "labels has 'Fraud X'; a label must match"),
        ({"event_id": {"column": "id", "constant": "x"}}, "exactly one"),
        ({"sampling_probability": 0.0}, "sampling_probability is 0.0"),
        ({"labels_known_after_days": -1}, "labels_known_after_days is -1"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Mapping.model_validate({**TEXTS.model_dump(), **change})


def test_a_published_split_is_dealt_out_evenly_and_always_alike(vault: Vault, tmp_path: Path) -> None:
    split = {"column": "tokens", "values": {"1": "train", "2": ["calibration", "test"]}}
    mapping = Mapping.model_validate({**TEXTS.model_dump(), "split": split})
    rows = [{**GOOD, "id": f"x{number}", "tokens": str(1 + number % 2)} for number in range(400)]
    lakes = [Lake(tmp_path / name, memory_limit="1GB") for name in ("one", "other")]

    for lake, given in zip(lakes, (rows, rows[::-1]), strict=True):
        import_events(lake, jsonl(tmp_path, *given), mapping, vault=vault)

    dealt = [
        dict(pq.read_table(lake.folder("inbox", "labels"), columns=["event_id", "split"]).to_pydict()) for lake in lakes
    ]
    by_id = [dict(zip(one["event_id"], one["split"], strict=True)) for one in dealt]
    counts = Counter(by_id[0].values())
    assert by_id[0] == by_id[1]
    assert counts["train"] == 200
    assert counts["calibration"] + counts["test"] == 200
    assert abs(counts["calibration"] - counts["test"]) < 60


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_a_shipped_mapping_is_named_for_its_file(path: Path) -> None:
    assert load_mapping(path).name == path.stem


@pytest.mark.parametrize(
    ("name", "num_rows", "positive"),
    [
        ("content_mix", 153_757, {"hate": 13_044, "harassment": 130, "toxic": 25_473, "any_violation": 31_182}),
        ("card_fraud_sim", 1_485_480, {"fraud": 12_299}),
        ("ethereum_accounts", 4_676, {"illicit": 2_179}),
    ],
)
def test_the_real_sets_import_whole(
    lake: Lake, vault: Vault, name: str, num_rows: int, positive: dict[str, int]
) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"MEWS_DATA has no {name}: {DATA}")
    mapping = next(load_mapping(path) for path in MAPPINGS if path.stem == name)

    report = import_events(lake, DATA / name, mapping, vault=vault)

    assert (report.num_accepted, report.num_rejected) == (num_rows, 0)
    assert {label: report.labels[label, 1] for label in positive} == positive
