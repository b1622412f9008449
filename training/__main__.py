"""`python -m training RUN_DIR`, or `torchrun ... -m training RUN_DIR`; `--dry-run` and `--curves-only` end earlier."""

import argparse
import logging
import os
import warnings
from pathlib import Path

from training import near_duplicates
from training.attended import end_with_launcher
from training.checkpoints import EVERY_S
from training.fit import fit


def main() -> None:
    """Train the detector of a run folder."""
    parser = argparse.ArgumentParser(prog="python -m training", description=main.__doc__)
    parser.add_argument("run_dir", type=Path)
    shorter = parser.add_mutually_exclusive_group()
    shorter.add_argument("--dry-run", dest="until", action="store_const", const="batch", help="try one batch")
    shorter.add_argument(
        "--curves-only", dest="until", action="store_const", const="curves", help="train, keep nothing"
    )
    parser.set_defaults(until="bundle")
    home = Path(os.environ.get("MEWS_HOME") or ".mews")
    parser.add_argument("--cache", type=Path, default=home / "pretrained", help="what other runs have computed")
    parser.add_argument(
        "--checkpoint-every", type=float, default=EVERY_S, metavar="SECONDS", help="at least between two checkpoints"
    )
    asked = parser.parse_args()
    if not end_with_launcher() and near_duplicates.are_sought(asked.run_dir):
        logging.getLogger(__name__).warning(
            "nobody looked for near-duplicates, which are trained on: python -m training.near_duplicates %s",
            asked.run_dir,
        )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips advertise
    warnings.filterwarnings("ignore", module="lightning")
    fit(asked.run_dir, cache=asked.cache, until=asked.until, checkpoint_every_s=asked.checkpoint_every)


if __name__ == "__main__":
    main()
