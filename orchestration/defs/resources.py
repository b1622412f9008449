"""What assets, checks and sensors are given; the environment is read here and nowhere else in the code location."""

import dagster as dg

from orchestration.settings import Settings
from orchestration.terminal import terminal


@dg.definitions
def resources() -> dg.Definitions:
    """Steps run in the process of their run: another one would import everything again (measured: 26x)."""
    return dg.Definitions(
        resources={"settings": Settings.from_environment(), "pipes": dg.PipesSubprocessClient()},
        executor=dg.in_process_executor,
        loggers={"terminal": terminal},
    )
