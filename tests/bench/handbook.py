"""The Fraud Detection Handbook's features of one card payment, by its own definition and by our SQL text.

Chapter 3, "Baseline feature transformation": two calendar flags, count and mean amount of a customer over 1, 7 and 30
days with the payment itself, count and fraud share of a terminal over the same windows seven days earlier. Its windows
are `(t - W, t]`; ours, exact and asked one microsecond after the payment, hold the same payments, since times are whole
seconds. Payments of one customer in one second are told apart by a microsecond each, in the order of the file.
"""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from feature_repo import text
from feature_repo.view import exact
from feature_repo.windows import VIEWS

DAYS = (1, 7, 30)
DELAY = 7  # days until a verdict is known
_PAYMENTS = """
    CREATE TEMP TABLE source AS
    SELECT TRANSACTION_ID AS id, CUSTOMER_ID AS customer, TERMINAL_ID AS terminal, TX_AMOUNT AS amount,
        TX_FRAUD AS is_fraud, TX_DATETIME AS paid_at,
        row_number() OVER (PARTITION BY CUSTOMER_ID, TX_DATETIME ORDER BY TRANSACTION_ID) - 1 AS place
    FROM '{folder}/*.parquet' WHERE TX_DATETIME < '{end}';
    CREATE TEMP TABLE payments AS
    SELECT id::VARCHAR AS event_id, epoch_us(paid_at) + place AS event_us, event_us AS arrived_us,
        customer::VARCHAR AS account_id, customer::VARCHAR AS card_id, terminal::VARCHAR AS merchant_id, amount
    FROM source;
    CREATE TEMP TABLE labels AS
    SELECT id::VARCHAR AS event_id, 'payments' AS event_table, epoch_us(paid_at) AS event_us,
        epoch_us(paid_at) + {delay} AS known_us, 'fraud' AS label, is_fraud AS value
    FROM source;
"""


def load(connection: duckdb.DuckDBPyConnection, folder: Path, *, end: str) -> pd.DataFrame:
    """Give a connection the lake's tables, and return the payments in the handbook's order."""
    connection.execute(_PAYMENTS.format(folder=folder, end=end, delay=DELAY * 86_400_000_000))
    return connection.sql("SELECT * FROM source ORDER BY paid_at, id").df()


def ours(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The fourteen features by our text, by payment id."""
    _answer(connection, "customer", "account_payments")
    _answer(connection, "terminal", "merchant_risk")
    joined = connection.sql("""
        SELECT p.event_id::BIGINT AS id, c.*, t.*,
            (isodow(make_timestamp(p.event_us)) >= 6)::INT AS weekend,
            (hour(make_timestamp(p.event_us)) <= 6)::INT AS night
        FROM payments AS p
        JOIN customer AS c ON c.account_id = p.account_id AND c.event_us = p.event_us + 1
        JOIN terminal AS t ON t.merchant_id = p.merchant_id AND t.event_us = p.event_us + 1
    """)
    names = {f"num_payments_{d}d": f"customer_num_{d}" for d in DAYS}
    names |= {f"mean_amount_{d}d": f"customer_mean_{d}" for d in DAYS}
    names |= {f"num_known_{d}d": f"terminal_num_{d}" for d in DAYS}
    names |= {f"fraud_share_{d}d": f"terminal_risk_{d}" for d in DAYS}
    frame = joined.df().rename(columns=names).set_index("id")
    return frame[["weekend", "night", *names.values()]].fillna(0.0)  # the handbook's risk of nothing known is 0


def _answer(connection: duckdb.DuckDBPyConnection, table: str, name: str) -> None:
    """Ask a view one microsecond after each payment, into a table."""
    view = exact(VIEWS[name])
    asked = f"SELECT DISTINCT {view.entity} AS entity, event_us + 1 AS us FROM payments"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE moments AS {asked}")
    connection.execute("CREATE OR REPLACE TEMP TABLE points AS SELECT *, us AS created FROM moments")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE facts AS {text.near(view, text.facts(view))}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {text.features(view)}")


def by_pandas(payments: pd.DataFrame) -> pd.DataFrame:
    """The fourteen features as the handbook's own code computes them, by payment id."""
    weekday, hour = payments["paid_at"].dt.weekday, payments["paid_at"].dt.hour
    flags = pd.DataFrame({"weekend": (weekday >= 5).astype(int), "night": (hour <= 6).astype(int)})
    frames = [flags.set_index(payments["id"]), _customers(payments), _terminals(payments)]
    return pd.concat(frames, axis=1)


def _customers(payments: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for _, rows in payments.groupby("customer"):
        amounts = rows.set_index("paid_at")["amount"]
        columns: dict[str, np.ndarray] = {}
        for days in DAYS:
            window = amounts.rolling(f"{days}d")
            columns[f"customer_num_{days}"] = window.count().to_numpy()
            columns[f"customer_mean_{days}"] = (window.sum() / window.count()).to_numpy()
        parts.append(pd.DataFrame(columns, index=rows["id"]))
    return pd.concat(parts)


def _terminals(payments: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for _, rows in payments.groupby("terminal"):
        frauds = rows.set_index("paid_at")["is_fraud"]
        num_delay, fraud_delay = frauds.rolling(f"{DELAY}d").count(), frauds.rolling(f"{DELAY}d").sum()
        columns: dict[str, np.ndarray] = {}
        for days in DAYS:
            window = frauds.rolling(f"{DELAY + days}d")
            num, fraud = window.count() - num_delay, window.sum() - fraud_delay
            columns[f"terminal_num_{days}"] = num.to_numpy()
            columns[f"terminal_risk_{days}"] = (fraud / num).fillna(0.0).to_numpy()
        parts.append(pd.DataFrame(columns, index=rows["id"]))
    return pd.concat(parts)


def wrong_cells(got: pd.DataFrame, expected: pd.DataFrame) -> int:
    """Cells that differ by more than rolling sums of floats can explain."""
    assert len(got) == len(expected)
    aligned = expected.loc[got.index, got.columns].to_numpy(dtype=np.float64)
    return int((~np.isclose(got.to_numpy(dtype=np.float64), aligned, rtol=1e-6, atol=1e-6)).sum())
