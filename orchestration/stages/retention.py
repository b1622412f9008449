"""Every day, what no policy wants kept any longer goes."""

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages.lake import OWNERS


def retention() -> dg.AssetsDefinition:
    """Remove decisions and days of the lake that are older than their policies keep them."""

    @dg.asset(
        key=["lake", "retention"],
        group_name="lake",
        kinds={"parquet"},
        owners=OWNERS,
        tags={"layer": "log"},
        description="Removes what is older than `policy.privacy.retention_days`; a policy without it keeps for ever.",
    )
    def asset(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from datetime import UTC, datetime

        from orchestration.detectors import read_detectors
        from orchestration.retention import enforce
        from serving.ledger import Ledger
        from serving.release import read_policy, sealed_bundles

        detectors = read_detectors(settings.defs).values()
        entries = Ledger(settings.ledger).entries()
        sealed = [read_policy(bundle) for bundle in sealed_bundles(settings.policies, entries)]
        today = datetime.now(UTC).date()
        gone = enforce(settings.lake, settings.decisions, detectors, today=today, sealed=sealed)
        return dg.MaterializeResult(metadata={"removed": gone})

    return asset
