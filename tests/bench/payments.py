"""The handbook's payments as the chain sees them: imported, featured and joined, then split as a benchmark asks."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.compute import compute_days
from feature_repo.lake import DAY_US, Lake, start_us
from feature_repo.store import open_store
from feature_repo.training_set import build
from feature_repo.windows import SERVICES
from orchestration.demo_real import MAPPINGS
from orchestration.handbook_week import NUM_DAYS, TESTED, TRAINED
from orchestration.importing import import_events
from orchestration.mapping import Split, load_mapping
from tests.bench.harness import DATA, IS_SMALL
from training.detector import DetectorSpec

JULY, TRAINED_UNTIL = date(2018, 7, 1), TRAINED + timedelta(days=NUM_DAYS)
LAST = TESTED + timedelta(days=NUM_DAYS - 1)
FILES = ("2018-07", "2018-08") if IS_SMALL else ("2018-04", "2018-05", "2018-06", "2018-07", "2018-08")
VALIDATION_DAYS = 14  # before the first that is trained on; they say which epoch was the best
VALIDATED = 5  # one of their payments in so many


@dataclass(frozen=True)
class Payments:
    """A lake of all payments, and a row with features for each that is trained, chosen or judged on."""

    lake: Lake
    rows: pa.Table

    def split(self, first: date) -> pa.Table:
        """The payments that are trained on from a day on, some of the days before it, and the handbook's test week."""
        event_us = np.array(self.rows["event_us"])
        names = np.full(len(event_us), "", dtype=object)
        before_us = start_us(first - timedelta(days=VALIDATION_DAYS))
        is_before = (event_us >= before_us) & (event_us < start_us(first))
        names[is_before & (np.arange(len(event_us)) % VALIDATED == 0)] = "validation"
        names[(event_us >= start_us(first)) & (event_us < start_us(TRAINED_UNTIL))] = "train"
        names[(event_us >= start_us(TESTED)) & (event_us < start_us(TESTED) + NUM_DAYS * DAY_US)] = "test"
        split = self.rows.set_column(self.rows.column_names.index("split"), "split", pa.array(names, pa.string()))
        return split.filter(pc.not_equal(split["split"], ""))


def bring_in(home: Path, spec: DetectorSpec) -> Payments:
    """Import the files through their mapping, compute the detector's features, and join them as known at each payment.

    Great Expectations is left out: it moves what it accepts, and accepts all of it.
    """
    lake, first = Lake(home / "lake"), (TRAINED if IS_SMALL else JULY) - timedelta(days=VALIDATION_DAYS)
    mapping = load_mapping(MAPPINGS / "card_fraud_sim.yaml")
    assert mapping.split is not None
    for month in FILES:
        use = "train" if month >= f"{first:%Y-%m}" else "unused"
        split = Split(column=mapping.split.column, values=dict.fromkeys(mapping.split.values, use))
        source = DATA / "card_fraud_sim" / f"transactions-{month}.parquet"
        import_events(lake, source, mapping.model_copy(update={"split": split}))
    (lake.root / "inbox").rename(lake.root / "events")
    compute_days(lake, first, LAST, views=SERVICES[spec.feature_service].views)
    out = home / "training_set"
    service = {"events": spec.events, "labels": spec.labels, "feature_service": spec.feature_service}
    build(lake, open_store(home), **service, out=out)
    inside = [("event_us", ">=", start_us(first)), ("event_us", "<", start_us(LAST) + DAY_US)]
    return Payments(lake, pq.read_table(out / "data.parquet", filters=inside))


def scenarios(event_ids: NDArray[np.object_]) -> NDArray[np.int64]:
    """Which of the three kinds of fraud the simulator made of each payment; 0 is none. Never a feature."""
    source = pq.read_table(DATA / "card_fraud_sim", columns=["TRANSACTION_ID", "TX_FRAUD_SCENARIO"])
    numbers = np.array([int(event_id.removeprefix("card-")) for event_id in event_ids])
    at = np.searchsorted(known := np.sort(ids := np.array(source["TRANSACTION_ID"])), numbers)
    assert (known[at] == numbers).all()
    return np.array(source["TX_FRAUD_SCENARIO"])[np.argsort(ids)][at].astype(np.int64)
