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
