"""What starts by itself: retraining of every detector, and the word about failed runs."""

import dagster as dg

from orchestration.detectors import read_detectors
from orchestration.settings import Settings
from orchestration.stages import news


@dg.definitions
def automation() -> dg.Definitions:
    """A sensor per detector for new labels; one for failures."""
    detectors = read_detectors(Settings.from_environment().defs)
    return dg.Definitions(sensors=[*(news.new_labels(d.spec) for d in detectors.values()), news.run_failure()])
