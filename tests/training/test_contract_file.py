"""A mistake in a policy is answered with its file, line, field, value and limit."""

from pathlib import Path

import pytest

from training.contract_file import read_contract
from training.detector import DetectorSpec
from training.policy import Action, Policy

GOOD = """\
attributes:
  policy:
    name: fraud
    version: 2
    degraded: hold
    strike_days: 30
    when_promise_breaks: expire
    labels:
      fraud:
        definition: the holder of the card did not make this payment
        severity: high
        examples: [pay-17, pay-18]
        action: hold
        uncertain: warn
        ladder:
          - {strikes: 3, action: block}
          - {strikes: 5, action: suspend}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fraud" / "defs.yaml"
    path.parent.mkdir()
    return path


def read(path: Path, text: str) -> Policy:
    path.write_text(text)
    return read_contract(path, Policy, at=("attributes", "policy"))


def test_a_policy_reads_as_it_is_written(file: Path) -> None:
    rule = read(file, GOOD).labels["fraud"]

    assert [rule.action_after(n) for n in (0, 3, 4, 5)] == [Action.HOLD, Action.BLOCK, Action.BLOCK, Action.SUSPEND]
    assert rule.severity == "high"


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("action: hold", "action: hald", "fraud/defs.yaml:13: policy.labels.fraud.action: Input should be 'allow', "),
        ("severity: high", "severity: 9", "fraud/defs.yaml:11: policy.labels.fraud.severity: "),
        ("version: 2", "version: 0", "fraud/defs.yaml:4: policy: policy.version is 0; it must be at least 1"),
        ("strike_days: 30", "strike_days: 9999", "policy.strike_days is 9999; it must be in 1..3650"),
        ("strikes: 5", "strikes: 2", "fraud/defs.yaml:9: policy.labels.fraud: ladder has a step at 2 strikes"),
        ("action: suspend", "action: warn", "each needs more strikes and a harder action"),
        (
            "uncertain: warn",
            "uncertain: block",
            "fraud/defs.yaml:14: policy.labels.fraud: uncertain is block; it must not be harder than action, hold",
        ),
        ("[pay-17, pay-18]", "[what a person wrote]", "examples has a value of 19 characters; ids must match"),
        ("degraded: hold", "degreded: hold", "fraud/defs.yaml:5: policy.degreded: Extra inputs are not permitted"),
        ("policy:", "polisy:", "fraud/defs.yaml:1: policy is missing"),
        ("version: 2", "version: [", "fraud/defs.yaml:6: this is not YAML"),
    ],
)
def test_a_mistake_names_file_line_field_and_limit(file: Path, before: str, after: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole message is compared below
        read(file, GOOD.replace(before, after, 1))

    assert sentence in str(refused.value)


def test_an_example_that_is_text_is_not_repeated(file: Path) -> None:
    with pytest.raises(ValueError, match="examples") as refused:
        read(file, GOOD.replace("[pay-17, pay-18]", "[my home address]"))

    assert "my home address" not in str(refused.value)


@pytest.mark.parametrize(
    ("promise", "sentence"),
    [
        ("{kind: recall, min_recall: 0.5}", "it can only stand beside 'benign_fpr'"),
        ("{limit: 1.5}", "promise.limit is 1.5; it must lie strictly between 0 and 1"),
        ("{per: country}", r"fraud.per is 'country'; it must be a column of names in detector.slices, .* \['plan'\]"),
        ("{per: entity_seen}", "detector.promises.fraud.per is 'entity_seen'"),
    ],
)
def test_a_promise_that_cannot_be_meant_is_refused(file: Path, promise: str, sentence: str) -> None:
    file.write_text(
        "{name: fraud, description: d, owners: [o], policy: p, events: payments, labels: [fraud], feature_service: s,"
        f" numbers: [amount], slices: [plan, entity_seen], promises: {{fraud: {promise}}}}}"
    )

    with pytest.raises(ValueError, match=sentence):
        read_contract(file, DetectorSpec)
