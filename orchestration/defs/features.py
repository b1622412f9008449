"""The feature views."""

import dagster as dg

from feature_repo.windows import VIEWS
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.features import feature_view


@dg.definitions
def features() -> dg.Definitions:
    """One asset per view of `feature_repo/windows.py`, computed as soon as its events are valid."""
    partitions = days.partitions(Settings.from_environment())
    return dg.Definitions(assets=[feature_view(view, partitions) for view in VIEWS.values()])
