"""A release: the candidate that passed its gate, sealed under one digest for people to sign; its policy likewise."""

import dagster as dg

from orchestration.settings import Settings
from orchestration.stages import shelf
from orchestration.stages.candidate import STARTED_BY
from training.detector import DetectorSpec
from training.policy import Policy


def release(spec: DetectorSpec, policy: Policy) -> dg.AssetsDefinition:
    """Seal the newest candidate and the policy as it is written; neither who trained it nor who sealed it may sign."""

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
        from serving.release import code_facts, seal_policy, seal_release

        run_dir = shelf.latest(settings.runs / spec.name)
        sealed_by = context.run.tags.get("started_by") or who()
        trained_by = (run_dir / STARTED_BY).read_text(encoding="utf-8")
        lineage = {"started_by": trained_by, "persons": [sealed_by], "run_id": run_dir.name, **code_facts(PROJECT)}
        desk = Approvals(settings)
        sealed = [
            seal_release(run_dir, settings.releases, lineage=lineage),
            seal_policy(policy, settings.policies, started_by=sealed_by),
        ]
        return dg.MaterializeResult(metadata={b.kind: dg.MetadataValue.md(_line(desk, b)) for b in sealed})

    def _line(desk, bundle) -> str:  # type: ignore[no-untyped-def]  # their modules are not imported at load
        approval = desk.status(bundle)
        waiting = ", ".join(approval.waiting_for)
        command = f"mews sign {bundle.digest[:12]} --as NAME"
        return f"`{bundle.digest}` is **{approval.state}**" + (f", waits for {waiting}: `{command}`" if waiting else "")

    return asset
