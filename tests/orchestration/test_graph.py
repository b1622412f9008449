from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetNode
from syrupy.assertion import SnapshotAssertion

from orchestration.definitions import defs


def test_the_graph_is_the_one_that_was_reviewed(snapshot: SnapshotAssertion) -> None:
    definitions = defs()
    graph = definitions.resolve_asset_graph()

    seen = {
        "assets": {node.key.to_user_string(): described(node) for node in graph.asset_nodes},
        "checks": sorted(
            f"{key.asset_key.to_user_string()}:{key.name}" + (" (blocking)" if graph.get(key).blocking else "")
            for key in graph.asset_check_keys
        ),
        "jobs": sorted(job.name for job in definitions.jobs or []),
        "schedules": sorted(schedule.name for schedule in definitions.schedules or []),
        "sensors": {s.name: s.default_status.value for s in definitions.sensors or []},
    }

    assert seen == snapshot


def described(node: AssetNode) -> dict[str, object]:
    condition = node.automation_condition
    return {
        "group": node.group_name,
        "kinds": sorted(node.kinds),
        "owners": sorted(node.owners),
        "deps": sorted(key.to_user_string() for key in node.parent_keys),
        "is_partitioned": node.is_partitioned,
        "automation": condition.get_label() or type(condition).__name__ if condition else None,
    }


def test_promises_are_looked_at_each_morning_also_where_nothing_was_deployed_since() -> None:
    check = dg.AssetCheckKey(dg.AssetKey(["content", "deployment"]), "promises_hold")
    definitions = defs()
    instance, wanted = dg.DagsterInstance.ephemeral(), dg.AssetSelection.checks(check)
    instance.report_runless_asset_event(dg.AssetMaterialization(check.asset_key))
    midnight, cursor, asked = datetime(2026, 1, 5, tzinfo=UTC), None, list[datetime]()

    for half_hours in range(3 * 48):
        now = midnight + timedelta(minutes=30 * half_hours)
        found = dg.evaluate_automation_conditions(
            definitions, instance, asset_selection=wanted, evaluation_time=now, cursor=cursor
        )
        cursor = found.cursor
        asked += [now] * found.total_requested

    assert [(at.day, at.hour, at.minute) for at in asked] == [(day, 6, 30) for day in (5, 6, 7)]
