"""A clean training set of payments over a lake of its own, and twelve leaks of six kinds to plant into it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import text
from feature_repo.compute import bound_tables, features_at
from feature_repo.lake import Lake, day_of
from feature_repo.leaks import Kind
from feature_repo.splits import SPLIT_SQL
from feature_repo.tables import DECISIONS
from feature_repo.view import DAY, HOUR, View
from feature_repo.windows import SERVICES, VIEWS
from tests.feature_repo import records

SERVICE = "payment_v2"
NUM_DAYS, NUM_ROWS = 40, 1_500


@dataclass
class Set:
    """A training set that is still being made: rows, manifest, and the lake that it is checked against."""

    lake: Lake
    rows: pd.DataFrame
    manifest: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Lay it down as `feature_repo.training_set.build` does."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "data.parquet", index=False)
        (folder / "manifest.json").write_text(json.dumps(self.manifest), encoding="utf-8")
        return folder

    @property
    def is_fraud(self) -> pd.Series:
        """Where the answer is yes."""
        return self.rows["fraud"] == 1


def clean(root: Path) -> Set:
    """Payments of forty days: some arrive late, a verdict takes two days, fraud is a little larger than the rest."""
    rng = np.random.default_rng(11)
    payments, labels = [], []
    for number, at_us in enumerate(np.sort(records.START + rng.integers(0, NUM_DAYS * DAY, NUM_ROWS)).tolist()):
        fraud, account = int(rng.random() < 0.1), int(rng.integers(60))
        row: dict[str, Any] = {"event_id": f"p{number}", "event_us": at_us, "account_id": f"a{account}", "ip": None}
        row |= {"arrived_us": at_us + (3 * DAY if rng.random() < 0.2 else 0), "merchant_id": f"m{rng.integers(8)}"}
        row |= {"card_id": f"c{account % 40}", "amount": float(rng.exponential(50 + 40 * fraud))}
        payments.append(row)
        labels.append(records.label_row(row["event_id"], at_us, at_us + 2 * DAY + HOUR, fraud))
    accounts = [
        {"event_id": f"s{n}", "event_us": records.START - DAY, "arrived_us": records.START - DAY, "account_id": f"a{n}",
         "kind": "signup", "ip": None, "device_id": None, "card_id": None, "email_domain": "a.example", "plan": "free"}
        for n in range(60)
    ]  # fmt: skip
    lake = records.write(root, {"payments": payments, "labels": labels, "accounts": accounts})
    rows = pd.DataFrame(payments).assign(
        fraud=pd.Series([label["value"] for label in labels], dtype="int8"),
        known_us=[label["known_us"] for label in labels],
        sampling_probability=1.0,
        published_split=pd.Series([None] * NUM_ROWS, dtype="string"),
    )
    for name in SERVICES[SERVICE].views:
        _join(rows, VIEWS[name], features_at(lake, VIEWS[name], _moments(rows, VIEWS[name])))
    with lake.connect() as connection:
        connection.register("made", rows)
        rows = connection.sql(SPLIT_SQL.format(rows="SELECT * FROM made")).df()
    cutoff_us = int(rows["known_us"].max())
    made = Set(
        lake, rows, {"events": "payments", "labels": ["fraud"], "feature_service": SERVICE, "cutoff_us": cutoff_us}
    )
    log_decisions(made)
    return made


def _moments(rows: pd.DataFrame, view: View) -> list[tuple[str, int]]:
    return list(zip(rows[view.entity].tolist(), rows["event_us"].tolist(), strict=True))


def _join(rows: pd.DataFrame, view: View, answers: list[dict[str, Any]]) -> None:
    for feature in view.features:
        dtype = {"int": "Int64", "float": "float64", "str": "string"}[feature.dtype]
        rows[feature.name] = pd.Series([a[feature.name] for a in answers], index=rows.index, dtype=dtype)


def log_decisions(made: Set, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Let the service have decided about the last 300 payments, with the features of the set, changed or not."""
    names = [f.name for view in SERVICES[SERVICE].views for f in VIEWS[view].features]
    logged = []
    for row in made.rows.tail(300).astype(object).where(made.rows.notna(), None).to_dict("records"):
        values = {name: row[name] for name in names}
        change(values)
        record = json.dumps({"features": {"values": values}})
        kept = {"decision_id": row["event_id"], "at_us": row["event_us"], "event_us": row["event_us"], "record": record}
        logged.append({**kept, "event_table": "payments", "event_id": row["event_id"], "degraded": False})
    types = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "BOOLEAN": pa.bool_(), "VARCHAR[]": pa.list_(pa.string())}
    types["MAP(VARCHAR, DOUBLE)"] = pa.map_(pa.string(), pa.float64())
    schema = pa.schema({name: types.get(c.type, pa.string()) for name, c in DECISIONS.columns.items()})
    day = day_of(records.START) + timedelta(days=NUM_DAYS)
    made.lake.write("log", "decisions", pa.Table.from_pylist(logged, schema=schema), day=day)


def _card_closed(made: Set) -> None:
    made.rows.loc[made.is_fraud, "card_id"] = None


def _plan_of_the_suspended(made: Set) -> None:
    made.rows["plan"] = made.rows["plan"].where(made.is_fraud, None)


def _a_day_later(made: Set) -> None:
    view = VIEWS["account_payments"]
    _join(made.rows, view, features_at(made.lake, view, [(e, us + DAY) for e, us in _moments(made.rows, view)]))


def _late_facts(made: Set) -> None:
    view, asked = VIEWS["card_activity"], _moments(made.rows, VIEWS["card_activity"])
    with made.lake.connect() as connection:
        days = [day_of(us) for _, us in asked]
        bound_tables(connection, made.lake, view, first=min(days), last=max(days))
        connection.register("asked", pa.table({"entity": [e for e, _ in asked], "us": [us for _, us in asked]}))
        connection.execute("CREATE TEMP TABLE moments AS SELECT DISTINCT * FROM asked")
        connection.execute(f"CREATE TEMP TABLE points AS SELECT *, us + {90 * DAY} AS created FROM moments")
        connection.execute(f"CREATE TEMP TABLE facts AS {text.near(view, text.facts(view))}")
        answers = connection.sql(text.features(view)).to_arrow_table().to_pylist()
    found = {(a[view.entity], a["event_us"]): a for a in answers}
    _join(made.rows, view, [found[moment] for moment in asked])


def _verdicts_at_the_event(made: Set) -> None:
    view, wrong = VIEWS["merchant_risk"], Lake(made.lake.root.with_name("wrong"))
    for table in ("payments", "labels"):
        for day in made.lake.days("events", table):
            rows = pq.ParquetFile(made.lake.folder("events", table, day) / "part.parquet").read()
            if table == "labels":
                rows = rows.set_column(rows.column_names.index("known_us"), "known_us", rows["event_us"])
            wrong.write("events", table, rows, day=day)
    _join(made.rows, view, features_at(wrong, view, _moments(made.rows, view)))


def _cutoff_ignored(made: Set) -> None:
    made.manifest["cutoff_us"] -= 10 * DAY


def _amount_after_the_chargeback(made: Set) -> None:
    made.rows.loc[made.is_fraud, "amount"] += 10_000.0


def _age_that_is_the_answer(made: Set) -> None:
    made.rows["account_age_s"] = made.is_fraud * 1e6 + np.arange(len(made.rows))


def _milliseconds(made: Set) -> None:
    def change(values: dict[str, Any]) -> None:
        since = values["seconds_since_payment"]
        values["seconds_since_payment"] = None if since is None else since * 1000

    log_decisions(made, change)


def _zero_where_nothing_is_known(made: Set) -> None:
    log_decisions(made, lambda values: values.update(mean_amount_1d=values["mean_amount_1d"] or 0.0))


def _shuffled(made: Set) -> None:
    made.rows["split"] = np.random.default_rng(3).permutation(made.rows["split"].to_numpy())


def _held_out_is_trained_on(made: Set) -> None:
    held_out = made.rows.index[made.rows["entity_seen"] == "unseen"]
    made.rows.loc[held_out[: len(held_out) // 3], "split"] = "train"
    order = made.rows.loc[held_out[: len(held_out) // 3]].index
    made.rows.loc[order, "event_us"] = int(made.rows["event_us"].min())


PLANTS: dict[str, tuple[Callable[[Set], None], Kind, str]] = {
    "cards removed when an account was closed": (_card_closed, "enforcement", "card_id"),
    "a plan that only the suspended still have": (_plan_of_the_suspended, "enforcement", "plan"),
    "features of a day later": (_a_day_later, "future", "num_payments_1d"),
    "facts that arrived after the event": (_late_facts, "future", "num_card_payments_7d"),
    "verdicts counted at the payment": (_verdicts_at_the_event, "early label", "fraud_share_7d"),
    "verdicts after the cutoff": (_cutoff_ignored, "early label", "known_us"),
    "the amount after the chargeback": (_amount_after_the_chargeback, "alone", "amount"),
    "an age that is the answer": (_age_that_is_the_answer, "alone", "account_age_s"),
    "milliseconds online": (_milliseconds, "skew", "seconds_since_payment"),
    "zero online where nothing is known": (_zero_where_nothing_is_known, "skew", "mean_amount_1d"),
    "shuffled splits": (_shuffled, "split", "event_us"),
    "held-out accounts in training": (_held_out_is_trained_on, "split", "account_id"),
}
