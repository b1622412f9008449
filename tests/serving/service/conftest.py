"""A home with real releases: trained, evaluated, sealed, signed by two people and deployed, ready to be served."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from starlette.testclient import TestClient

from serving import deployment
from serving.approval import revoke, sign
from serving.auth import create_key
from serving.bundle import Bundle
from serving.deployment import Shelves
from serving.keys import create_key as create_signing_key
from serving.keys import load_key
from serving.ledger import Ledger
from serving.parts import Parts
from serving.people import People, Person, begin
from serving.release import seal_policy, seal_release
from tests.training.conftest import behaviour_spec, payments, text_spec, texts, write_run
from training.detector import DetectorSpec, Gate
from training.policy import Action, LabelPolicy, Policy, Promise

SIGNERS = {"ada": "ml", "grace": "policy"}


@dataclass
class Team:
    """The people of a home, and what they do with its releases."""

    home: Path
    signers: dict[str, CryptoSigner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        publics = {name: create_signing_key(self.home / "keys" / f"{name}.pem", None) for name in SIGNERS}
        self.signers = {name: load_key(self.home / "keys" / f"{name}.pem", None) for name in SIGNERS}
        people = [Person(name=name, roles=[role], public_key=publics[name]) for name, role in SIGNERS.items()]
        self.people = People(people=people)
        (self.home / "people.yaml").write_text(self.people.model_dump_json())  # JSON is YAML
        self.ledger = Ledger(self.home / "ledger" / "ledger.jsonl")
        begin(self.ledger, self.people)
        self.shelves = Shelves(self.home / "releases", self.home / "policies")

    def seal(self, run_dir: Path, *, note: str = "") -> Bundle:
        """Seal a run; another note makes another release of the same weights."""
        (run_dir / "card.md").write_text(f"# card {note}\n")
        return seal_release(run_dir, self.shelves.releases, lineage={"started_by": "tom"})

    def seal_policy(self, spec: DetectorSpec) -> Bundle:
        labels = {label: LabelPolicy(definition=f"means {label}", action=Action.BLOCK) for label in spec.labels}
        policy = Policy(name=spec.policy, labels=labels, degraded=Action.HOLD)
        return seal_policy(policy, self.shelves.policies, started_by="tom")

    def sign(self, *bundles: Bundle) -> None:
        for bundle in bundles:
            for signer in self.signers.values():
                sign(self.ledger, self.people, bundle, signer=signer)

    def deploy(self, release: Bundle, policy: Bundle) -> None:
        deployment.deploy(self.ledger, self.people, release, policy, by="tom")

    def revoke(self, bundle: Bundle) -> None:
        revoke(self.ledger, self.people, bundle, signer=self.signers["ada"], reason="it hurts people")


def spam_spec() -> DetectorSpec:
    """A promise that the generated texts, one in fifty of them labelled wrongly, can keep, and no attack on them."""
    unattacked = Gate(min_seen_kept=0, min_unseen_kept=0, max_twin_ratio=1e9)
    return text_spec().model_copy(update={"promises": {"fraud_spam": Promise(limit=0.1)}, "gate": unattacked})


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run folder of each network, from the fit to the verdict."""
    from training.evaluate import evaluate_run
    from training.export import complete
    from training.fit import fit

    root = tmp_path_factory.mktemp("runs")
    runs = {
        "content": write_run(root / "content", spam_spec(), rows=texts(8000)),
        "payment_fraud": write_run(root / "payment_fraud", behaviour_spec(max_epochs=2), rows=payments()),
    }
    for run_dir in runs.values():
        fit(run_dir)
        complete(run_dir / "bundle")
        (run_dir / "training_set.json").write_text(json.dumps({"num_rows": 2000, "cutoff_us": 1}))
        evaluate_run(run_dir)
        verdict = json.loads((run_dir / "verdict.json").read_text())
        assert verdict["passed"], verdict["reason"]
    return runs


@pytest.fixture
def runs(trained: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {name: Path(shutil.copytree(path, tmp_path / "runs" / name)) for name, path in trained.items()}


@pytest.fixture
def team(tmp_path: Path) -> Team:
    home = tmp_path / "home"
    home.mkdir()
    return Team(home)


@pytest.fixture
def policy(team: Team) -> Bundle:
    sealed = team.seal_policy(spam_spec())
    team.sign(sealed)
    return sealed


@pytest.fixture
def first(team: Team, runs: dict[str, Path], policy: Bundle) -> Bundle:
    """A text detector that is deployed."""
    release = team.seal(runs["content"], note="first")
    team.sign(release)
    team.deploy(release, policy)
    return release


@pytest.fixture
def key(team: Team) -> str:
    return create_key(team.home / "api_keys.json", "tests", scopes=["decide", "bulk", "read"])


@pytest.fixture
def parts(team: Team, key: str) -> Iterator[Parts]:
    made = Parts(team.home)
    yield made
    made.close()


@pytest.fixture
def client(parts: Parts, key: str) -> Iterator[TestClient]:
    with TestClient(parts.door, headers={"authorization": f"Bearer {key}"}) as made:
        yield made
