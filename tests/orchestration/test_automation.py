"""What starts by itself for a day, given what arrived on it."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from feature_repo.windows import VIEWS
from orchestration.definitions import defs

DAY = "2026-01-05"
ALL = {*(f"features/{name}" for name in VIEWS), "online/state"}
OF_ACCOUNTS = {"account_activity", "account_payments", "account_profile", "device_activity", "ip_activity"}


def asked(*arrived: str, refused: str = "") -> set[str]:
    """What is asked for when these tables have events of a day, and one more has nothing but a refused batch.

    What is asked for is taken as done before the next look.
    """
    definitions, cursor = defs(), None
    wanted = dg.AssetSelection.groups("features")
    midnight, found = datetime(2026, 1, 6, tzinfo=UTC), set[dg.AssetKey]()
    with dg.DagsterInstance.ephemeral() as instance:
        new = {dg.AssetKey(["lake", table]) for table in arrived}
        for minutes in range(5):
            ended = dg.evaluate_automation_conditions(
                definitions,
                instance,
                asset_selection=wanted,
                evaluation_time=midnight + timedelta(minutes=minutes),
                cursor=cursor,
            )
            cursor = ended.cursor
            if minutes == 0:  # whatever is asked for before anything arrived
                assert not ended.total_requested
            else:
                new = {
                    key
                    for key in wanted.resolve(definitions.resolve_asset_graph())
                    if DAY in ended.get_requested_partitions(key)
                }
            for key in new:
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=DAY))
            if refused:
                check = dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(["lake", refused]), check_name="is_valid", passed=False, blocking=True
                )
                instance.report_runless_asset_event(check)
            found |= new
    return {key.to_user_string() for key in found if key.path[0] != "lake"}


def test_a_whole_day_has_all_its_features_computed_and_then_the_state() -> None:
    assert asked("requests", "payments", "accounts", "labels") == ALL


@pytest.mark.parametrize("silent", ["labels", "requests"])
def test_a_table_without_events_of_a_day_holds_up_no_features(silent: str) -> None:
    arrived = {"requests", "payments", "accounts", "labels"} - {silent}

    assert asked(*arrived) == ALL


def test_features_that_nobody_would_ask_for_on_a_day_are_not_computed() -> None:
    assert asked("accounts") == {*(f"features/{name}" for name in OF_ACCOUNTS), "online/state"}


def test_a_refused_batch_holds_up_what_reads_it() -> None:
    of_labels = {f"features/{name}" for name, view in VIEWS.items() if view.is_of_verdicts}

    assert asked("requests", "payments", "accounts", refused="labels") == ALL - of_labels
