"""A small office: three people with keys, a ledger, a run that passed its gate, and its sealed release and policy."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from serving.approval import sign
from serving.bundle import Bundle
from serving.deployment import Shelves
from serving.keys import create_key, load_key
from serving.ledger import Ledger
from serving.people import People, Person, begin
from serving.release import seal_policy, seal_release
from training.detector import DetectorSpec
from training.policy import LabelPolicy, Policy

ROLES = {"ada": ["ml"], "bob": ["policy"], "eve": ["ml", "policy"], "tom": ["ml", "policy"]}


@dataclass
class Office:
    """Everything that a release meets on its way; `tom` starts the runs."""

    root: Path
    ledger: Ledger
    people: People
    signers: dict[str, CryptoSigner]
    shelves: Shelves
    run_dir: Path

    def seal(self, weights: bytes = b"weights") -> Bundle:
        """Seal a release; other weights make another release."""
        (self.run_dir / "bundle" / "model.safetensors").write_bytes(_safetensors(weights))
        return seal_release(self.run_dir, self.shelves.releases, lineage={"started_by": "tom", "persons": ["Olga"]})

    def seal_policy(self, version: int = 1) -> Bundle:
        """Seal a policy."""
        policy = Policy(name="fraud", version=version, labels={"fraud": LabelPolicy(definition="A stolen card.")})
        return seal_policy(policy, self.shelves.policies, started_by="tom")

    def approve(self, *bundles: Bundle) -> None:
        """Let both roles sign."""
        for bundle in bundles:
            for name in ("ada", "bob"):
                sign(self.ledger, self.people, bundle, signer=self.signers[name])

    def reopen(self) -> Ledger:
        """The ledger as another process reads it."""
        self.ledger = Ledger(self.ledger.path, witnesses=[self.root / "witness" / "ledger.head"])
        return self.ledger


@pytest.fixture
def office(tmp_path: Path) -> Office:
    publics = {name: create_key(tmp_path / "keys" / f"{name}.pem", "open sesame") for name in ROLES}
    people = People(people=[Person(name=n, roles=ROLES[n], public_key=publics[n]) for n in ROLES])
    signers = {name: load_key(tmp_path / "keys" / f"{name}.pem", "open sesame") for name in ROLES}
    ledger = Ledger(tmp_path / "ledger" / "ledger.jsonl", witnesses=[tmp_path / "witness" / "ledger.head"])
    begin(ledger, people)
    shelves = Shelves(tmp_path / "releases", tmp_path / "policies")
    return Office(tmp_path, ledger, people, signers, shelves, make_run(tmp_path / "run"))


@pytest.fixture
def release(office: Office) -> Bundle:
    return office.seal()


def advance(clock: pytest.MonkeyPatch, *, days: int) -> None:
    """Let it be some days later from now on, and always that moment."""
    now_ns = time.time_ns() + days * 86_400 * 10**9
    clock.setattr(time, "time_ns", lambda: now_ns)
    clock.setattr(time, "time", lambda: now_ns / 1e9)


def make_run(run_dir: Path) -> Path:
    """A run folder as training leaves it."""
    spec = DetectorSpec(
        name="payment_fraud",
        description="Payments with stolen cards.",
        owners=["team:payments"],
        policy="fraud",
        events="payments",
        labels=["fraud"],
        feature_service="payment_v2",
        numbers=["amount"],
    )
    verdict = {"passed": True, "reason": "all criteria passed", "criteria": [{"name": "ap", "passed": True}]}
    files = {
        "detector.json": spec.model_dump_json(),
        "training_set.json": json.dumps({"num_rows": 200, "cutoff_us": 1}),
        "evaluation.json": json.dumps({"average_precision": 0.7}),
        "verdict.json": json.dumps(verdict),
        "card.md": "# payment_fraud\n",
        "bundle/spec.json": spec.model_dump_json(),
        "bundle/encoder.json": "{}",
        "bundle/thresholds.json": json.dumps({"fraud": 0.5}),
    }
    for name, content in files.items():
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text(content)
    (run_dir / "bundle" / "model.safetensors").write_bytes(_safetensors(b"weights"))
    return run_dir


def _safetensors(content: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    return len(header).to_bytes(8, "little") + header + content
