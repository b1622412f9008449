"""Reads the detectors' folders without Dagster: the specs and policies that `defs/<name>/defs.yaml` state."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from training.contract_file import read_contract
from training.detector import DetectorSpec
from training.policy import Policy


@dataclass(frozen=True)
class Detector:
    """What a detector's folder says."""

    spec: DetectorSpec
    policy: Policy


@cache
def read_detectors(defs: Path) -> dict[str, Detector]:
    """Every detector by name, in the order of the folders' names."""
    detectors = [_read(path) for path in sorted(defs.glob("*/defs.yaml"))]
    return {detector.spec.name: detector for detector in detectors}


def known_labels(defs: Path) -> frozenset[str]:
    """Every label that a detector estimates or a policy defines; a verdict about another one is a mistake."""
    detectors = read_detectors(defs).values()
    return frozenset(label for d in detectors for label in (*d.spec.labels, *d.policy.labels))


def _read(path: Path) -> Detector:
    spec = read_contract(path, DetectorSpec, at=("attributes", "detector"))
    return Detector(spec, read_contract(path, Policy, at=("attributes", "policy")))
