from datetime import date
from pathlib import Path

import dagster as dg

from feature_repo.lake import DAY_US, start_us
from feature_repo.online import OnlineFeatures
from feature_repo.states import open_states
from feature_repo.windows import SERVICES, VIEWS
from orchestration.settings import Settings
from orchestration.stages.features import online_state, online_verdicts
from tests.feature_repo.records import label_row, write

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


def test_verdicts_count_for_requests_as_soon_as_they_are_in_the_lake(tmp_path: Path) -> None:
    settings, at_us = Settings(home=tmp_path, first_day=DAY), start_us(DAY)
    payment = {"event_id": "p", "event_us": at_us, "arrived_us": at_us, "account_id": "a", "merchant_id": "m"}
    payment |= {"card_id": "c", "amount": 2.0, "ip": None}
    labels = [label_row("p", at_us, at_us + 5, 1), label_row("p", at_us, at_us + 8, 0)]
    write(settings.lake.root, {"payments": [payment], "labels": labels})
    asset = online_verdicts(dg.DailyPartitionsDefinition(start_date=DAY.isoformat()))
    made = [asset, dg.AssetSpec(["lake", "labels"])]

    for _ in range(2):
        dg.materialize(made, partition_key=DAY.isoformat(), resources={"settings": settings}, selection=[asset])

    reader = OnlineFeatures(open_states(tmp_path, deadline_s=5), [VIEWS[v] for v in SERVICES["payment_v2"].views])
    early, late = reader.read([payment, payment], [at_us + 6, at_us + 9])
    assert (early.values["num_known_1d"], early.values["fraud_share_1d"]) == (1, 1.0)
    assert (late.values["num_known_1d"], late.values["fraud_share_1d"]) == (2, 0.5)
