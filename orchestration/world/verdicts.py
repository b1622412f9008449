"""What people and banks say about the events of a day, and when: sampled, delayed, and sometimes wrong."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.lake import DAY_US
from orchestration.world.accounts import MISUSE
from orchestration.world.grammar import LABELS, VIOLATIONS
from orchestration.world.rows import HOUR_US, Day, Happened, in_contract

LONGEST_DAYS = 15  # no verdict becomes known later than this many days after its event


@dataclass(frozen=True)
class Review:
    """How people review one table: a floor for every event, more of what was reported, and known error rates.

    Whether an event is reported is seen by everyone; so an event's sampling probability is known: the floor, or
    the floor and then `reported` of the rest.
    """

    floor: float
    reported: float = 0.9
    report_of_violation: float = 0.4
    report_of_benign: float = 0.01
    miss: float = 0.06  # a true label is not seen
    false_alarm: float = 0.0006  # a label is seen that is not there
    scary_false_alarm: float = 0.008  # the same on benign texts that look bad


CONTENT_REVIEW = Review(floor=0.15)
ACCOUNT_REVIEW = Review(floor=0.1, report_of_violation=0.5, miss=0.08, false_alarm=0.002)
APPEALED = 0.5  # of wrong positive verdicts are appealed and taken back, two to five days later
NO_CHARGEBACK_US = 7 * DAY_US  # a payment without a chargeback counts as honest from then on
NEVER_NOTICED = 0.05  # of frauds never lead to a chargeback
FRIENDLY = 0.0004  # of honest payments are charged back all the same


def verdicts_of(day: Day, events: dict[str, Happened]) -> pa.Table:
    """All verdicts about the events of one day, whenever they become known."""
    tables = [
        _reviewed(day, events["requests"], review=CONTENT_REVIEW, labels=LABELS),
        _reviewed(day, events["accounts"], review=ACCOUNT_REVIEW, labels=MISUSE),
        _chargebacks(day, events["payments"]),
    ]
    return pa.concat_tables(tables).sort_by(
        [("known_us", "ascending"), ("event_id", "ascending"), ("label", "ascending")]
    )


def _reviewed(day: Day, events: Happened, *, review: Review, labels: tuple[str, ...]) -> pa.Table:
    rng = day.stream(f"review-{events.table}")
    truth = np.stack([events.truth[label].to_numpy() for label in labels], axis=1)
    violates = truth.max(axis=1) == 1
    reported = rng.random(len(violates)) < np.where(violates, review.report_of_violation, review.report_of_benign)
    probability = np.where(reported, review.floor + (1 - review.floor) * review.reported, review.floor)
    chosen = np.flatnonzero(rng.random(len(violates)) < probability)
    scary = pc.match_substring_regex(events.truth["stratum"], "^scary|_twin$|^dual").to_numpy()
    alarm = np.where(scary, review.scary_false_alarm, review.false_alarm)[chosen, None]
    said = _judge(truth[chosen], miss=review.miss, alarm=alarm, rng=rng)
    if labels == LABELS:
        said[:, -1] |= said[:, : len(VIOLATIONS)].any(axis=1)
    event_us = events.truth["event_us"].to_numpy()[chosen]
    known_us = event_us + np.clip(rng.lognormal(np.log(18), 0.8, len(chosen)) * HOUR_US, HOUR_US, 6 * DAY_US).astype(
        np.int64
    )
    wide = _Verdicts(events, chosen, known_us, said, probability[chosen])
    wrong = (said > truth[chosen]).any(axis=1) & (rng.random(len(chosen)) < APPEALED)
    heard_us = known_us + (rng.uniform(2, 5, len(chosen)) * DAY_US).astype(np.int64)
    appeals = _Verdicts(events, chosen[wrong], heard_us[wrong], truth[chosen][wrong], probability[chosen][wrong])
    return pa.concat_tables([wide.long(labels, "reviewer"), appeals.long(labels, "appeal")])


def _judge(truth: np.ndarray, *, miss: float, alarm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a reviewer says about true labels, each label judged by itself."""
    chance = rng.random(truth.shape)
    return np.where(truth == 1, chance >= miss, chance < alarm).astype(np.int8)


def _chargebacks(day: Day, events: Happened) -> pa.Table:
    """A charged back payment is known as fraud after 3 to 14 days; any other is taken for honest after 7 days.

    The bank tells both in a file each midnight.
    """
    rng = day.stream("chargebacks")
    fraud = events.truth["fraud"].to_numpy()
    noticed = np.where(fraud == 1, rng.random(len(fraud)) >= NEVER_NOTICED, rng.random(len(fraud)) < FRIENDLY)
    event_us = events.truth["event_us"].to_numpy()
    charged_us = event_us + (DAY_US * (3 + 11 * rng.beta(1.3, 3.0, len(fraud)))).astype(np.int64)
    told_us, clear_us = _next_midnight(charged_us), _next_midnight(event_us + NO_CHARGEBACK_US)
    back = np.flatnonzero(noticed)
    quiet = np.flatnonzero(~noticed | (told_us > clear_us))
    one = np.ones(len(fraud))
    found = _Verdicts(events, back, told_us[back], np.ones((len(back), 1), np.int8), one[back])
    clear = _Verdicts(events, quiet, clear_us[quiet], np.zeros((len(quiet), 1), np.int8), one[quiet])
    return pa.concat_tables([found.long(("fraud",), "chargeback"), clear.long(("fraud",), "chargeback")])


def _next_midnight(us: np.ndarray) -> np.ndarray:
    return us + -us % DAY_US


@dataclass(frozen=True)
class _Verdicts:
    """Verdicts about chosen events: one row each, one column per label."""

    events: Happened
    chosen: np.ndarray
    known_us: np.ndarray
    said: np.ndarray
    probability: np.ndarray

    def long(self, labels: tuple[str, ...], source: str) -> pa.Table:
        """One row per event and label, as the lake keeps them."""
        num_labels = len(labels)
        event = self.events.truth.select(["event_id", "event_us"]).take(pa.array(np.repeat(self.chosen, num_labels)))
        num_rows = len(event)
        columns = {
            "event_id": event["event_id"],
            "event_table": pa.array([self.events.table]).take(pa.array(np.zeros(num_rows, np.int64))),
            "event_us": event["event_us"],
            "known_us": np.repeat(self.known_us, num_labels),
            "label": pa.array(labels).take(pa.array(np.tile(np.arange(num_labels), len(self.chosen)))),
            "value": self.said.reshape(-1),
            "source": pa.array([source]).take(pa.array(np.zeros(num_rows, np.int64))),
            "sampling_probability": np.repeat(self.probability, num_labels),
            "split": pa.nulls(num_rows, pa.string()),
        }
        return in_contract("labels", pa.table(columns))
