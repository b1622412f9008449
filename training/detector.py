"""The contract: what a detector is. Pydantic and standard library only, so that a hundred load without torch."""

import re
from typing import Literal, Self

from pydantic import model_validator

from training.fit_config import FitConfig
from training.policy import Contract, Promise
from training.search_space import Search

_KNOWN_LATER = {"entity_seen", "source"}  # columns that say something about training, not about the event
_OF_TEXTS = {"length", "script"}  # which evaluation finds from the text, and no event brings


class Gate(Contract):
    """What a candidate must show before it can be sealed.

    `min_average_precision` bounds the macro mean over labels that have at least `min_positives` positive test rows;
    `max_regression` is how far the lower end of the paired interval against the champion may lie below zero.
    A detector of texts must keep `min_seen_kept` of its recall under the worst technique of the attack gym that
    training may show, and `min_unseen_kept` under the worst held-out one, and flag at most `max_twin_ratio` times as
    many benign twins as clean. `attack_files` names files of jailbreak prompts below the data directory, in the forms
    of PyRIT and garak, each of which is a held-out technique more. `benign_suites` names suites of benign texts with
    the largest share that may be flagged. `max_bundle_mb` and `max_event_ms` bound what serving takes: memory, and the
    median CPU time of one event.
    """

    min_average_precision: float = 0.5
    max_regression: float = 0.02
    min_positives: int = 20
    min_seen_kept: float = 0.85
    min_unseen_kept: float = 0.7
    max_twin_ratio: float = 1.5
    attack_files: list[str] = []
    benign_suites: dict[str, float] = {}
    max_bundle_mb: float = 500.0
    max_event_ms: float = 50.0


class Ratio(Contract):
    """A derived number: `numerator / (denominator + 1)`, null where either is null; a ratio to own history.

    `is_square`: the numerator is a mean square, of which the root is taken.
    """

    name: str
    numerator: str
    denominator: str
    is_square: bool = False


class Cascade(Contract):
    """Let the first of `fit.members` answer alone about what it is sure of, so that fewer events cost an encoder.

    Of what all members together would flag they must still be asked about `min_kept`, proved on `validation`. Where
    they would be asked about more than `max_asked` of the benign events, they are asked about all: it pays too little.
    """

    min_kept: float = 0.97
    max_asked: float = 0.25

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for field in ("min_kept", "max_asked"):
            if not 0 < getattr(self, field) < 1:
                raise ValueError(f"cascade.{field} is {getattr(self, field)}; it must lie in (0, 1)")
        return self


class Retrain(Contract):
    """When a detector is trained again without being asked: by a calendar, or after so many newly labelled events."""

    cron: str | None = None
    min_new_labels: int = 500


class DetectorSpec(Contract):
    """Everything that tells one detector from another; sealed into each release.

    For each of `unseen_sources` the detector is trained once more without that source, to see how it does on it. A text
    that repeats one of a more protected split to more than `max_similarity` (Jaccard) is left out; None looks for none.
    `reviews_per_day` says for how many events of a label people have time: so wide is the band below its threshold.
    """

    name: str
    description: str
    owners: list[str]
    policy: str
    promises: dict[str, Promise] = {}
    reviews_per_day: dict[str, int] = {}
    events: Literal["requests", "payments", "accounts"]
    labels: list[str]
    feature_service: str
    text: str | None = None
    numbers: list[str] = []
    categories: list[str] = []
    ratios: list[Ratio] = []
    slices: list[str] = []
    unseen_sources: list[str] = []
    max_similarity: float | None = 0.9
    gate: Gate = Gate()
    retrain: Retrain = Retrain()
    cascade: Cascade | None = None
    fit: FitConfig = FitConfig()
    search: Search = Search()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", self.name):
            raise ValueError(f"detector.name is {self.name!r}; it must match [a-z][a-z0-9_]{{1,40}}")
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"detector.labels is {self.labels}; it must name each label once and at least one")
        if self.fit.readers and self.text is None:
            raise ValueError(f"detector.text is not set; network {self.fit.network!r} needs the name of a text column")
        if self.fit.network == "behaviour" and not (self.numbers or self.categories):
            raise ValueError("detector.numbers and detector.categories are empty; network 'behaviour' needs columns")
        if both := set(self.fit.benign_suites) & set(self.gate.benign_suites):
            raise ValueError(
                f"fit.benign_suites and gate.benign_suites share {sorted(both)}: that judges what was learned"
            )
        self.search.check(self.fit)
        known = {*self.numbers, "amount"}
        for ratio in self.ratios:
            if unknown := {ratio.numerator, ratio.denominator} - known:
                raise ValueError(f"detector.ratios {ratio.name!r} names {sorted(unknown)}, not in detector.numbers")
        return self

    @model_validator(mode="after")
    def _cascade(self) -> Self:
        if self.cascade and "encoder" not in self.fit.members[1:]:
            raise ValueError(
                f"fit.members is {self.fit.members}; a cascade needs 'encoder' and, before it, a member that is cheap"
            )
        return self

    @model_validator(mode="after")
    def _promises_about_labels(self) -> Self:
        named = {
            "promises": self.promises.keys(),
            "reviews_per_day": self.reviews_per_day.keys(),
            "fit.assumed_benign": self.fit.assumed_benign.keys(),
        }
        for field, labels in named.items():
            if unknown := labels - set(self.labels):
                raise ValueError(f"detector.{field} has {sorted(unknown)}, not in detector.labels {self.labels}")
        unnamed = {*_KNOWN_LATER, *_OF_TEXTS, *self.numbers, *(ratio.name for ratio in self.ratios), "amount"}
        known = [name for name in self.slices if name not in unnamed]
        for label, promise in self.promises.items():
            if promise.per is not None and promise.per not in known:
                raise ValueError(
                    f"detector.promises.{label}.per is {promise.per!r}; it must be a column of names in "
                    f"detector.slices, of which there are {known}"
                )
        return self

    def promise(self, label: str) -> Promise:
        """What is promised about a label; the default promise where the detector names none."""
        return self.promises.get(label, Promise())
