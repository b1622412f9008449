"""A deployment: a release that people of two roles signed is asked to be served; the service verifies it itself."""

import time
from typing import Any

import dagster as dg

from orchestration.settings import Settings
from training.detector import DetectorSpec

# Not `on_cron`, which waits for another deployment.
_MORNING: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed("30 6 * * *")
EACH_MORNING = _MORNING.since_last_handled()
_WARNS_DAYS = 14
_MINUTE_US = 60_000_000


def deployment(spec: DetectorSpec) -> dg.AssetsDefinition:
    """Deploy the newest release under the newest policy; refuses, and records it, what is not approved."""

    @dg.asset(
        key=[spec.name, "deployment"],
        deps=[[spec.name, "release"]],
        group_name=spec.name,
        owners=spec.owners,
        kinds={"bentoml"},
        pool=f"deploy_{spec.name}",
        description="What the service is asked to answer with, from an approval until the next one.",
    )
    def asset(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        from orchestration.approvals import Approvals

        desk = Approvals(settings)
        done = desk.deploy(desk.newest_release(spec.name), desk.newest_policy(spec.policy))
        return dg.MaterializeResult(metadata={"release": done.release, "policy": done.policy, "by": done.by})

    return asset


def promises_hold(spec: DetectorSpec) -> dg.AssetChecksDefinition:
    """Hold what is served to its promises, on events that people reviewed; the ledger remembers one that is broken."""

    @dg.asset_check(
        asset=[spec.name, "deployment"],
        name="promises_hold",
        automation_condition=EACH_MORNING,
        description="On live verdicts with known sampling probabilities; may be looked at as often as one likes.",
    )
    def check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        from orchestration.approvals import Approvals
        from orchestration.promises import recheck

        found = recheck(Approvals(settings), spec.name)
        broken = [one.in_words() for one in found if one.is_broken]
        said = "\n\n".join(one.in_words() for one in found) or "nothing is served"
        return dg.AssetCheckResult(
            passed=not broken, description="; ".join(broken), metadata={"promises": dg.MetadataValue.md(said)}
        )

    return check


def approvals_last(spec: DetectorSpec) -> dg.AssetChecksDefinition:
    """Warn two weeks before an approval of what is served expires, as nothing is answered from that moment on."""

    @dg.asset_check(
        asset=[spec.name, "deployment"],
        name="approvals_last",
        automation_condition=EACH_MORNING,
        description=f"The release and the policy that are served stay approved for {_WARNS_DAYS} days more.",
    )
    def check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        from orchestration.approvals import Approvals

        desk = Approvals(settings)
        if desk.servable(spec.name) is None:
            is_lost = desk.was_served(spec.name)
            why = "what was deployed is approved no more" if is_lost else "nothing was deployed yet"
            return dg.AssetCheckResult(passed=not is_lost, description=why)
        left = [(bundle, desk.days_left(bundle)) for bundle in desk.served(spec.name)]
        soon = [
            f"the {bundle.kind} is approved for {days:.0f} days more; those who signed it can sign again: "
            f"`mews sign {bundle.digest[:12]} --as NAME`"
            for bundle, days in left
            if days < _WARNS_DAYS
        ]
        return dg.AssetCheckResult(
            passed=not soon,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(soon) or None,
            metadata={f"{bundle.kind}_days_left": round(days, 1) for bundle, days in left},
        )

    return check


def approval_sensor(spec: DetectorSpec) -> dg.SensorDefinition:
    """Starts the deployment of a release once people have signed it and its policy, and again while that fails.

    Whatever ended a run, the next try waits at most as long as all tries before it took; 90 days hold 18 of them.
    """

    @dg.sensor(
        name=f"{spec.name}_approval",
        target=[dg.AssetKey([spec.name, "deployment"])],
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Deploys the newest release as soon as it and its policy are approved; while that fails, again 1, "
        "2, 4, 8 and so on minutes after the last signature.",
    )
    def sensor(settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        from orchestration.approvals import Approvals, NothingSealed

        desk = Approvals(settings)
        try:
            release, policy = desk.newest_release(spec.name), desk.newest_policy(spec.policy)
        except NothingSealed as nothing:
            return dg.SkipReason(str(nothing))
        waiting = {b.kind: s for b in (release, policy) if (s := desk.status(b)).state != "approved"}
        if waiting:
            return dg.SkipReason("; ".join(f"{kind} is {s.state}: {s.reason}" for kind, s in waiting.items()))
        if desk.was_deployed(release, policy):
            return dg.SkipReason(
                f"{release.digest[:12]} was deployed; whoever went back from it deploys it again by hand"
            )
        signed_us = max(desk.status(bundle).signed_by[-1].at_us for bundle in (release, policy))
        key = f"{release.digest}-{policy.digest}-{signed_us}-{_num_waits(signed_us)}"
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key, tags={"release": release.digest[:12]})])

    return sensor


def _num_waits(since_us: int) -> int:
    """How often a minute has doubled since then: it grows 1, 2, 4, 8 and so on minutes later."""
    return max(0, (time.time_ns() // 1000 - since_us) // _MINUTE_US).bit_length()
