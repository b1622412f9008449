"""A detector as a folder: its YAML says which, the stages say how."""

import dagster as dg

from orchestration.stages.candidate import candidate, candidate_passes_gate
from orchestration.stages.deployment import approval_sensor, approvals_last, deployment, promises_hold
from orchestration.stages.release import release
from orchestration.stages.search import search
from orchestration.stages.training_set import training_set
from training.detector import DetectorSpec
from training.policy import Policy


class DetectorComponent(dg.Component, dg.Model, dg.Resolvable):
    """The chain of one detector, from its training set to what answers requests."""

    detector: DetectorSpec
    policy: Policy

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  # Dagster calls it so
        """List the stages in the order a record meets them."""
        spec = self.detector
        return dg.Definitions(
            assets=[training_set(spec), candidate(spec), release(spec, self.policy), deployment(spec), search(spec)],
            asset_checks=[candidate_passes_gate(spec), promises_hold(spec), approvals_last(spec)],
            jobs=[dg.define_asset_job(f"search_{spec.name}", selection=[dg.AssetKey([spec.name, "search"])])],
            sensors=[approval_sensor(spec)],
        )
