"""Keeps the pages that people look at true: the registry within half a minute, and the release's page in Dagster."""

import json

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages import news


def registry_mirror() -> dg.SensorDefinition:
    """Put back what was moved by hand in the registry, raise it, and observe each release whose standing changed."""

    @dg.sensor(
        name="registry_mirror",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tags, descriptions and the champion alias follow the ledger; what somebody moved is put back.",
    )
    def sensor(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
        from orchestration.approvals import Approvals
        from orchestration.mirror import sync
        from orchestration.standing import standing_text

        if not settings.people.exists():
            return dg.SensorResult(skip_reason="nobody may sign here yet")
        desk = Approvals(settings)
        moved = [what for each in sync(desk).values() for what in each]
        for what in moved:
            context.log.error(what)
            if settings.webhook_url:
                news.tell(settings.webhook_url, what, "registry_mirror")
        said: dict[str, str] = json.loads(context.cursor or "{}")
        newest = {b.name: b for b in desk.bundles() if b.kind == "release"}
        texts = {
            name: standing_text(bundle, desk.status(bundle), service_url=settings.service_url)
            for name, bundle in newest.items()
        }
        events = [
            dg.AssetObservation([name, "release"], metadata={"standing": dg.MetadataValue.md(text)})
            for name, text in texts.items()
            if said.get(name) != text
        ]
        reason = "; ".join(moved) or f"{len(events)} of {len(texts)} releases stand otherwise than before"
        return dg.SensorResult(asset_events=events, cursor=json.dumps(texts), skip_reason=reason)

    return sensor
