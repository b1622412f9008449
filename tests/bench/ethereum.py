"""4,676 Ethereum accounts: rows and labels through the door, the totals of each account from the publisher's file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.lake import Lake
from orchestration.demo_real import MAPPINGS
from orchestration.importing import import_events, load_mapping
from tests.bench.harness import DATA
from training.detector import DetectorSpec
from training.fit_config import FitConfig

SOURCE = DATA / "ethereum_accounts" / "data.parquet"
NOT_TOTALS = ("source_id", "Address", "label", "split")


def accounts(folder: Path) -> tuple[DetectorSpec, pa.Table]:
    """A detector of reported accounts, and its training set with the published splits."""
    lake = Lake(folder / "lake")
    import_events(lake, SOURCE, load_mapping(MAPPINGS / "ethereum_accounts.yaml"))
    labels = pq.read_table(lake.folder("inbox", "labels"), columns=["event_id", "event_us", "value", "split"])
    labels = labels.rename_columns(["event_id", "event_us", "illicit", "split"])
    totals = pq.read_table(SOURCE).drop_columns(list(NOT_TOTALS))
    names = [name for name in totals.column_names if name != "id"]
    rows = labels.join(totals, keys="event_id", right_keys="id").sort_by("event_id")
    rows = rows.append_column("sampling_probability", pa.array(np.ones(len(rows))))
    words = [name for name in names if pa.types.is_string(totals.schema.field(name).type)]
    spec = DetectorSpec(
        name="ethereum",
        description="Accounts that were reported as illicit.",
        owners=["team:payments-risk"],
        policy="payment_fraud",
        events="accounts",
        labels=["illicit"],
        feature_service="account_v1",
        numbers=[name for name in names if name not in words],
        categories=words,
        fit=FitConfig(max_epochs=40, patience=40, global_batch_size=128, learning_rate=4e-3),
    )
    return spec, rows
