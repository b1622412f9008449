"""4,676 Ethereum accounts: rows and labels through the door, the totals of each account from the publisher's file."""

from pathlib import Path

import pyarrow as pa

from feature_repo.lake import Lake
from orchestration.demo_real import MAPPINGS
from orchestration.importing import import_events, load_mapping
from serving.vault import Vault
from tests.bench.harness import DATA
from training.detector import DetectorSpec
from training.fit_config import FitConfig

SOURCE = DATA / "ethereum_accounts" / "data.parquet"
_ROWS = """
    SELECT l.event_id, l.event_us, l.value AS illicit, l.split, 1.0::DOUBLE AS sampling_probability,
        t.* EXCLUDE (id, source_id, Address, label, split)
    FROM ({labels}) AS l JOIN '{source}' AS t ON t.id = l.event_id ORDER BY l.event_id
"""
_OWN = ("event_id", "event_us", "illicit", "split", "sampling_probability")


def accounts(folder: Path) -> tuple[DetectorSpec, pa.Table]:
    """A detector of reported accounts, and its training set with the published splits."""
    lake = Lake(folder / "lake")
    import_events(lake, SOURCE, load_mapping(MAPPINGS / "ethereum_accounts.yaml"), vault=Vault(folder / "keys"))
    with lake.connect() as connection:
        rows = connection.sql(_ROWS.format(labels=lake.select("inbox", "labels"), source=SOURCE)).to_arrow_table()
    totals = [field for field in rows.schema if field.name not in _OWN]
    words = [field.name for field in totals if pa.types.is_string(field.type)]
    spec = DetectorSpec(
        name="ethereum",
        description="Accounts that were reported as illicit.",
        owners=["team:payments-risk"],
        policy="payment_fraud",
        events="accounts",
        labels=["illicit"],
        feature_service="account_v1",
        numbers=[field.name for field in totals if field.name not in words],
        categories=words,
        fit=FitConfig(max_epochs=40, patience=40, global_batch_size=128, learning_rate=4e-3),
    )
    return spec, rows
