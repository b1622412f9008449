"""What starts by itself: retraining of every detector, and the word about failed runs."""

import dagster as dg

from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from orchestration.stages import news


@dg.definitions
def automation() -> dg.Definitions:
    """Per detector a sensor for new labels and, where it names one, a calendar; one sensor for failures."""
    specs = [detector.spec for detector in read_detectors(Settings.from_environment().defs).values()]
    return dg.Definitions(
        sensors=[*(news.new_labels(spec) for spec in specs), news.run_failure()],
        schedules=[news.calendar(spec, spec.retrain.cron) for spec in specs if spec.retrain.cron],
    )
