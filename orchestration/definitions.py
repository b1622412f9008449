"""The code location: everything under `orchestration/defs/`, one folder per detector."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load what the folder holds; nothing heavy is imported here."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
