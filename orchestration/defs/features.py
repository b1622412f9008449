"""The feature views, offline and online."""

import dagster as dg

from feature_repo.windows import VIEWS
from orchestration.settings import Settings
from orchestration.stages import days
from orchestration.stages.features import feature_view, online_state


@dg.definitions
def features() -> dg.Definitions:
    """One asset per view of `feature_repo/windows.py`, and the state of all entities."""
    partitions = days.partitions(Settings.from_environment())
    views = [feature_view(view, partitions) for view in VIEWS.values()]
    return dg.Definitions(assets=[*views, online_state(VIEWS.values(), partitions)])
