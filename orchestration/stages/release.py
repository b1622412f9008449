"""A release: the candidate that passed its gate, sealed under one digest for people to sign; its policy likewise."""

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.stages.candidate import STARTED_BY
from training.detector import DetectorSpec
from training.policy import Policy


def release(spec: DetectorSpec, policy: Policy) -> dg.AssetsDefinition:
    """Seal the run's own candidate, or else the newest, and the policy as it is written.

    Neither who trained it nor who sealed it may sign.
    """

    @dg.asset(
        key=[spec.name, "release"],
        deps=[[spec.name, "candidate"]],
        group_name=spec.name,
        owners=spec.owners,
        kinds={"bundle"},
        description="Weights, encoder, thresholds, evaluation and data manifest under one digest that people sign.",
    )
    def asset(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from orchestration.approvals import PROJECT, Approvals, who
        from orchestration.standing import registered_version, standing_text
        from serving.release import code_facts, seal_policy, seal_release

        run_dir = shelf.of_run(settings.runs / spec.name, context.run.run_id)
        sealed_by = context.run.tags.get("started_by") or who()
        trained_by = (run_dir / STARTED_BY).read_text(encoding="utf-8")
        lineage = {
            "started_by": trained_by,
            "persons": [sealed_by],
            "run_id": run_dir.name,
            "model_version": registered_version(run_dir),
            **code_facts(PROJECT),
        }
        desk = Approvals(settings)
        sealed = [
            seal_release(run_dir, settings.releases, lineage=lineage),
            seal_policy(policy, settings.policies, started_by=sealed_by),
        ]
        for bundle in sealed:
            desk.record_sealed(bundle, by=sealed_by)
        texts = {b.kind: standing_text(b, desk.status(b), service_url=settings.service_url) for b in sealed}
        return dg.MaterializeResult(metadata={str(kind): dg.MetadataValue.md(text) for kind, text in texts.items()})

    return asset
