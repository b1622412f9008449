"""`python -m training RUN_DIR`, or `torchrun ... -m training RUN_DIR`; `--dry-run` tries one batch."""

import argparse
import logging
import os
import warnings
from pathlib import Path

from training.fit import fit


def main() -> None:
    """Train the detector of a run folder."""
    parser = argparse.ArgumentParser(prog="python -m training", description=main.__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    home = Path(os.environ.get("MEWS_HOME", ".mews"))
    parser.add_argument("--cache", type=Path, default=home / "pretrained", help="what other runs have computed")
    asked = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips advertise
    warnings.filterwarnings("ignore", module="lightning")
    fit(asked.run_dir, cache=asked.cache, is_dry_run=asked.dry_run)


if __name__ == "__main__":
    main()
