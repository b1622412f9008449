"""The lake's tables: columns, types, bounds. Import, validation and features all read this one contract."""

from dataclasses import dataclass, field

EVENT_ID = r"^[A-Za-z0-9_.:-]{1,64}$"


@dataclass(frozen=True)
class Column:
    """One column; `values` is a closed set, `minimum`/`maximum` are inclusive, `pattern` is a regular expression."""

    type: str  # a DuckDB type: VARCHAR, BIGINT, INTEGER, DOUBLE, TINYINT
    is_nullable: bool = False
    is_unique: bool = False
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()
    pattern: str | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """A day-partitioned table of the lake. The day is the partition, not a column, and in UTC: that of `event_us`, and
    for labels that of `known_us`, so that a day once written is never written to again."""

    name: str
    meaning: str
    columns: dict[str, Column] = field(default_factory=dict)


def _event(**columns: Column) -> dict[str, Column]:
    return {
        "event_id": Column(
            "VARCHAR", is_unique=True, pattern=EVENT_ID, meaning="stable: importing it again changes nothing"
        ),
        "event_us": Column("BIGINT", minimum=0, meaning="when it happened, microseconds since 1970 UTC"),
        "arrived_us": Column("BIGINT", minimum=0, meaning="when the lake first knew it"),
        **columns,
    }


_ID = Column("VARCHAR", is_nullable=True, pattern=EVENT_ID)

REQUESTS = Table(
    "requests",
    "a prompt to the AI service, or its completion",
    _event(
        account_id=_ID,
        ip=_ID,
        kind=Column(
            "VARCHAR",
            values=("prompt", "completion", "social", "message", "system_prompt", "document", "functional_test"),
            meaning="what the text is",
        ),
        text=Column("VARCHAR", meaning="the text itself; never logged"),
        num_tokens=Column("INTEGER", minimum=0, maximum=10_000_000),
    ),
)
PAYMENTS = Table(
    "payments",
    "a card payment",
    _event(
        account_id=_ID,
        card_id=_ID,
        merchant_id=_ID,
        ip=_ID,
        amount=Column("DOUBLE", minimum=0, maximum=1_000_000, meaning="in the account's currency"),
    ),
)
ACCOUNTS = Table(
    "accounts",
    "an account seen at a moment: when it signed up, and once on each day on which it was active",
    _event(
        account_id=Column("VARCHAR", pattern=EVENT_ID),
        kind=Column("VARCHAR", values=("signup", "daily")),
        ip=_ID,
        device_id=_ID,
        card_id=_ID,
        email_domain=Column("VARCHAR", is_nullable=True),
        plan=Column("VARCHAR", is_nullable=True, values=("free", "trial", "paid")),
    ),
)
LABELS = Table(
    "labels",
    "one verdict about one label of one event; a later verdict about the same label wins from when it is known",
    {
        "event_id": Column("VARCHAR", pattern=EVENT_ID),
        "event_table": Column("VARCHAR", values=("requests", "payments", "accounts")),
        "event_us": Column("BIGINT", minimum=0, meaning="when the event happened"),
        "known_us": Column("BIGINT", minimum=0, meaning="when this verdict became known"),
        "label": Column("VARCHAR", pattern=r"^[a-z][a-z0-9_]*$"),
        "value": Column("TINYINT", minimum=0, maximum=1, meaning="1 = violates; not known has no row"),
        "source": Column("VARCHAR", values=("reviewer", "chargeback", "appeal", "import", "report")),
        "sampling_probability": Column("DOUBLE", minimum=0, maximum=1, meaning="with which the event was chosen"),
        "split": Column(
            "VARCHAR",
            is_nullable=True,
            values=("train", "validation", "calibration", "test", "unused"),
            meaning="frozen by the data's publisher; unused: for features only; null: split by time and entity",
        ),
    },
)

EVENT_TABLES = {table.name: table for table in (REQUESTS, PAYMENTS, ACCOUNTS)}
TABLES = {**EVENT_TABLES, LABELS.name: LABELS}
ENTITIES = ("account_id", "ip", "card_id", "merchant_id", "device_id")
