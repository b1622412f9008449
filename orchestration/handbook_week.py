"""The test week of the Fraud Detection Handbook (Le Borgne et al. 2022): what it judges and how, and what it found.

A fraud is known after seven days. So a week is trained on, a week passes, and each day of the next week is judged
without the cards whose fraud was known before it: https://fraud-detection-handbook.github.io, chapter 5.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.lake import DAY_US, Lake, start_us
from training.metrics import (
    Estimate,
    Sample,
    card_precision,
    draw_replicates,
    estimate,
    estimate_over_days,
    replicate,
)

DELAY_DAYS = 7
NUM_DAYS = 7
TRAINED, TESTED = date(2018, 7, 25), date(2018, 8, 8)  # first days of both weeks
PUBLISHED = {  # chapter 3, baseline models: AUC, average precision, card precision@100
    "logistic regression": (0.871, 0.606, 0.291),
    "decision tree of depth 2": (0.763, 0.496, 0.241),
    "random forest": (0.867, 0.658, 0.287),
    "XGBoost": (0.862, 0.639, 0.273),
}
_JUDGED = """
    WITH verdicts AS (SELECT event_id, value FROM labels WHERE event_table = 'payments' AND label = 'fraud'),
    known AS (SELECT p.*, v.value = 1 AS is_fraud, p.event_us // {day} AS day_number
              FROM payments AS p JOIN verdicts AS v USING (event_id)
              WHERE p.event_us >= {since} AND p.event_us < {end}),
    defrauded AS (SELECT card_id, min(day_number) AS day_number FROM known WHERE is_fraud GROUP BY card_id)
    SELECT known.* EXCLUDE (day_number) FROM known LEFT JOIN defrauded USING (card_id)
    WHERE known.event_us >= {start}
        AND (defrauded.day_number IS NULL OR known.day_number - defrauded.day_number <= {delay})
    ORDER BY known.event_us, known.event_id
"""


@dataclass(frozen=True)
class Judgement:
    """How well scores of the judged payments rank; the intervals are of a bootstrap over cards, or over days."""

    num_payments: int
    num_frauds: int
    auc: Estimate
    average_precision: Estimate
    card_precision: Estimate  # mean over days of the share of defrauded cards among the 100 most suspicious

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            name: value.model_dump() if isinstance(value, Estimate) else value for name, value in vars(self).items()
        }


def judged_payments(lake: Lake, first: date, *, num_days: int = NUM_DAYS) -> pa.Table:
    """The payments of some days with `is_fraud`, without those of cards whose fraud of the last weeks was known."""
    since, end = first - timedelta(days=DELAY_DAYS + NUM_DAYS), first + timedelta(days=num_days)
    moments = {"start": start_us(first), "since": start_us(since), "end": start_us(end)}
    with lake.connect() as connection:
        return connection.sql(_JUDGED.format(day=DAY_US, delay=DELAY_DAYS, **moments)).to_arrow_table()


def judge(payments: pa.Table, scores: NDArray[np.floating]) -> Judgement:
    """Judge one score per payment of `judged_payments`."""
    is_fraud, cards = np.array(payments["is_fraud"]), np.array(payments["card_id"].to_pylist(), dtype=object)
    clusters = np.unique(cards.astype(str), return_inverse=True)[1]
    sample = Sample(scores, is_fraud, np.ones(len(scores)), clusters)
    found = replicate(sample, draw_replicates(int(clusters.max()) + 1))
    auc, average_precision = estimate(found["auc"]), estimate(found["average_precision"])
    assert auc is not None
    assert average_precision is not None
    days = np.array(payments["event_us"]) // DAY_US
    precision = estimate_over_days(card_precision(days, cards, scores, labels=is_fraud))
    assert precision is not None
    return Judgement(len(scores), int(is_fraud.sum()), auc, average_precision, precision)
