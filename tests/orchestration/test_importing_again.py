"""The same source again, or a corrected one: what is written, what stays, and what is withdrawn."""

from datetime import date
from pathlib import Path

from feature_repo.lake import Lake
from orchestration.importing import import_events
from orchestration.mapping import Mapping
from orchestration.validation import validate_batches
from serving.vault import Vault
from tests.orchestration.imports import GOOD, TEXTS, inbox, jsonl


def test_importing_again_changes_nothing(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    source = jsonl(tmp_path, GOOD, {**GOOD, "id": "x2", "at": "2026-03-02"})
    import_events(lake, source, TEXTS, vault=vault)
    before = {file: file.stat().st_mtime_ns for file in lake.root.rglob("*.parquet")}

    report = import_events(lake, source, TEXTS, vault=vault)

    assert (report.num_files_written, report.num_files_unchanged) == (0, 4)
    assert {file: file.stat().st_mtime_ns for file in lake.root.rglob("*.parquet")} == before


def test_files_of_one_name_in_two_folders_are_two_sources(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "eu").mkdir()
    (tmp_path / "us").mkdir()

    import_events(lake, jsonl(tmp_path / "eu", GOOD), TEXTS, vault=vault)
    import_events(lake, jsonl(tmp_path / "us", {**GOOD, "id": "x2"}), TEXTS, vault=vault)

    assert {row["event_id"] for row in inbox(lake)} == {"x1", "x2"}


def test_importing_again_what_was_accepted_meanwhile_changes_nothing(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    source = jsonl(tmp_path, GOOD)
    import_events(lake, source, TEXTS, vault=vault)
    (lake.root / "inbox").rename(lake.root / "events")

    report = import_events(lake, source, TEXTS, vault=vault)

    assert report.num_files_written == 0
    assert not (lake.root / "inbox").exists()


def test_a_corrected_source_replaces_what_it_brought_before(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    import_events(lake, jsonl(tmp_path, GOOD), TEXTS, vault=vault)

    report = import_events(lake, jsonl(tmp_path, {**GOOD, "text": "hello again"}), TEXTS, vault=vault)

    assert report.num_files_written == 1
    assert [row["text"] for row in inbox(lake)] == ["hello again"]


def test_a_source_that_lost_days_leaves_them_by_default_and_names_them(
    lake: Lake, vault: Vault, tmp_path: Path
) -> None:
    import_events(lake, jsonl(tmp_path, GOOD, {**GOOD, "id": "x2", "at": "2026-03-02"}), TEXTS, vault=vault)
    (lake.root / "inbox").rename(lake.root / "events")

    report = import_events(lake, jsonl(tmp_path, GOOD), TEXTS, vault=vault)

    assert report.days_left == [("requests", date(2026, 3, 2)), ("labels", date(2026, 3, 4))]
    assert (report.num_days_left, report.num_days_withdrawn) == (2, 0)
    assert lake.days("events", "requests") == [date(2026, 3, 1), date(2026, 3, 2)]


def test_a_replaced_source_withdraws_what_moved_to_another_day(lake: Lake, vault: Vault, tmp_path: Path) -> None:
    days = [date(2026, 3, 1), date(2026, 3, 2)]
    import_events(lake, jsonl(tmp_path, GOOD, {**GOOD, "id": "x2", "at": "2026-03-02"}), TEXTS, vault=vault)
    assert all(report.passed for report in validate_batches(lake, "requests", days))
    later = Mapping.model_validate({**TEXTS.model_dump(), "labels_known_after_days": 30})
    moved = jsonl(tmp_path, GOOD, {**GOOD, "id": "x2"})

    report = import_events(lake, moved, later, vault=vault, replace=True)

    assert (report.num_days_left, report.num_days_withdrawn) == (0, 3)
    assert validate_batches(lake, "requests", days[:1])[0].passed
    assert lake.days("events", "requests") == days[:1]
    assert lake.days("inbox", "labels") == [date(2026, 3, 31)]


def test_going_back_to_what_was_accepted_replaces_the_correction_that_waits(
    lake: Lake, vault: Vault, tmp_path: Path
) -> None:
    import_events(lake, jsonl(tmp_path, GOOD), TEXTS, vault=vault)
    (lake.root / "inbox").rename(lake.root / "events")
    import_events(lake, jsonl(tmp_path, {**GOOD, "text": "hello again"}), TEXTS, vault=vault)

    report = import_events(lake, jsonl(tmp_path, GOOD), TEXTS, vault=vault)

    assert report.num_files_written == 1
    assert [row["text"] for row in inbox(lake)] == ["hello"]
