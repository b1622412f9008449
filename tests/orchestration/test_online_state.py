from datetime import date
from pathlib import Path

import dagster as dg

from feature_repo.lake import DAY_US, start_us
from feature_repo.online import OnlineFeatures
from feature_repo.states import open_states
from feature_repo.windows import SERVICES, VIEWS
from orchestration.settings import Settings
from orchestration.stages.features import online_state
from tests.feature_repo.records import write

DAY = date(2026, 3, 10)


def test_the_asset_rebuilds_what_the_service_reads(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, first_day=DAY)
    request = {"event_id": "r", "event_us": start_us(DAY), "arrived_us": start_us(DAY), "account_id": "a", "ip": "i"}
    write(settings.lake.root, {"requests": [{**request, "kind": "prompt", "text": "-", "num_tokens": 3}]})
    asset = online_state(VIEWS.values(), dg.DailyPartitionsDefinition(start_date=DAY.isoformat()))

    done = dg.materialize(
        [asset, *(dg.AssetSpec(["features", view]) for view in VIEWS)],
        partition_key=DAY.isoformat(),
        resources={"settings": settings},
        selection=[asset],
    )

    (materialized,) = done.asset_materializations_for_node("online__state")
    assert materialized.metadata["account_activity"].value == 1
    reader = OnlineFeatures(open_states(tmp_path, deadline_s=5), [VIEWS[v] for v in SERVICES["account_v1"].views])
    (row,) = reader.read([{"account_id": "a"}], [start_us(DAY) + DAY_US])
    assert (row.values["num_requests_7d"], row.status["num_requests_7d"]) == (1, "present")
