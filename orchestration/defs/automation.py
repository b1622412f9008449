"""What starts by itself: retraining of every detector, features of new days, and the word about failed runs."""

import dagster as dg

from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from orchestration.stages import mirror, news

CONDITIONS = dg.AutomationConditionSensorDefinition(
    "automation_conditions",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Computes the features of a day as soon as its events are valid.",
)


@dg.definitions
def automation() -> dg.Definitions:
    """Per detector a sensor for new labels and, where it names one, a calendar; besides, failed and killed runs."""
    specs = [detector.spec for detector in read_detectors(Settings.from_environment().defs).values()]
    return dg.Definitions(
        sensors=[
            *(news.new_labels(spec) for spec in specs),
            news.run_failure(),
            news.killed_runs(),
            mirror.registry_mirror(),
            CONDITIONS,
        ],
        schedules=[news.calendar(spec, spec.retrain.cron) for spec in specs if spec.retrain.cron],
    )
