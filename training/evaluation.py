"""What an evaluation says: the stored form (evaluation.json) that gate, card, registry and release read.

It holds no clock and no path, so that evaluating the same run again gives the same bytes.
"""

from typing import Literal

from training.metrics import Estimate
from training.policy import Contract
from training.score_bins import ScoreBins
from training.thresholds import Threshold

MACRO = "macro"


class Rates(Contract):
    """What happens at the released threshold; an estimate is None where no row can show it."""

    recall: Estimate | None
    benign_fpr: Estimate | None
    precision: Estimate | None
    flagged_share: Estimate | None


class LabelEvaluation(Contract):
    """One label on the test split."""

    num_rows: int
    num_positives: int
    average_precision: Estimate | None = None
    auc: Estimate | None = None
    recall_at_1pct_fpr: Estimate | None = None
    recall_at_01pct_fpr: Estimate | None = None
    ece: Estimate | None = None
    brier: Estimate | None = None
    card_precision: Estimate | None = None
    at_threshold: Rates | None = None
    scores: ScoreBins | None = None  # of the whole label, for telling drift from


class SliceEvaluation(LabelEvaluation):
    """One label on the rows of the test split that have one value in one column."""

    label: str
    column: str
    value: str


class Difference(Contract):
    """Candidate minus champion on the same rows, by paired bootstrap; `column` and `value` name a slice, or nothing."""

    label: str
    metric: str
    candidate: float
    champion: float
    difference: Estimate
    column: str | None = None
    value: str | None = None


class Comparison(Contract):
    """Candidate against champion; labels that only one of them has are named and not compared.

    `why` says why the champion cannot be asked about the same rows, so that nothing is compared.
    """

    champion: str
    differences: list[Difference]
    only_candidate: list[str]
    only_champion: list[str]
    why: str | None = None


class AttackEvaluation(Contract):
    """One technique on the same test texts clean and disguised, at the released thresholds.

    `recall_kept` is the recall under attack as a share of the clean one; `twin_excess` is by how much the benign twins'
    false-positive rate exceeds what the gate allows for the clean one.
    """

    technique: str
    is_seen: bool
    num_harmful: int
    num_twins: int
    recall_clean: Estimate | None
    recall: Estimate | None
    recall_kept: Estimate | None
    twin_fpr_clean: Estimate | None
    twin_fpr: Estimate | None
    twin_excess: Estimate | None
    kept_by_label: dict[str, float | None]

    @property
    def twin_ratio(self) -> float | None:
        """How many times as many twins are flagged disguised as clean; None where none is flagged clean."""
        if self.twin_fpr is None or self.twin_fpr_clean is None or not self.twin_fpr_clean.value:
            return None
        return self.twin_fpr.value / self.twin_fpr_clean.value


class SuiteEvaluation(Contract):
    """Texts that break no rule, many of which look as if they did: how many are flagged, with the exact interval.

    `why` says why a suite that the detector names was not measured.
    """

    suite: str
    num_texts: int = 0
    num_flagged: int = 0
    flagged: Estimate | None = None
    by_label: dict[str, int] = {}
    why: str | None = None


class ShortcutEvaluation(Contract):
    """What a detector would reach that sees one column alone, and how this one ranks rows of the same value.

    `within_auc` is the mean over the `num_within` pairs of value and label that have rows of both kinds.
    """

    column: str
    num_values: int
    column_alone: Estimate | None
    within_auc: Estimate | None
    num_within: int


class UnseenSourceEvaluation(Contract):
    """One label on the violations of a source and all benign test rows: trained without the source, and with it.

    `why` says why it was not measured.
    """

    source: str
    label: str
    num_positives: int = 0
    average_precision: Estimate | None = None
    average_precision_seen: Estimate | None = None
    recall_at_1pct_fpr: Estimate | None = None
    recall_at_1pct_fpr_seen: Estimate | None = None
    why: str | None = None


class Confusion(Contract):
    """Of the rows that truly have a label, the share flagged as each (or as nothing), and how many such rows."""

    shares: dict[str, dict[str, float]]
    num_rows: dict[str, int]


class ServingCost(Contract):
    """What serving a candidate takes: the size of its bundle, and the median CPU time of one event scored alone."""

    bundle_mb: float
    event_ms: float


class SplitSummary(Contract):
    """What a split holds: counts and the time it spans, microseconds UTC."""

    split: str
    num_rows: int
    num_entities: int
    first_us: int
    last_us: int
    num_known: dict[str, int]
    num_positives: dict[str, int]
    num_near_duplicates: int = 0  # texts left out since they nearly repeat one of a more protected split
    num_not_sampled: int  # rows without a known sampling probability: not used for any number


class Evaluation(Contract):
    """Everything that was found out about a candidate, before anyone judges it."""

    schema_version: Literal[1] = 1
    detector: str
    splits: list[SplitSummary]
    labels: dict[str, LabelEvaluation]
    macro_labels: list[str]
    macro_average_precision: Estimate | None
    benign_burden: Estimate | None = None  # of rows not known to break any rule, the share that some label flags
    thresholds: dict[str, Threshold]
    slices: list[SliceEvaluation]
    comparison: Comparison | None
    shortcuts: list[ShortcutEvaluation] = []
    unseen_sources: list[UnseenSourceEvaluation] = []
    confusion: Confusion | None = None
    label_errors: dict[str, int] = {}  # verdicts per label that look wrong, of rows not trained on
    attacks: list[AttackEvaluation] = []
    benign_suites: list[SuiteEvaluation] = []
    serving_cost: ServingCost | None = None
    bundle_difference: float  # between the probabilities of the bundle and the evaluated ones
