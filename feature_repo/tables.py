"""The lake's tables: columns, types, bounds. Import, validation and features all read this one contract."""

from dataclasses import dataclass, field

EVENT_ID = r"^[A-Za-z0-9_.:-]{1,64}$"


@dataclass(frozen=True)
class Column:
    """One column; `values` is a closed set, `minimum`/`maximum` are inclusive, `pattern` is a regular expression."""

    type: str  # a DuckDB type that `feature_repo.lake.ARROW` knows
    is_nullable: bool = False
    is_forgettable: bool = False  # whoever brings an event must give it, but a policy may keep it out of the lake
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
        text=Column("VARCHAR", is_forgettable=True, meaning="the text itself; never logged"),
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

DECISIONS = Table(
    "decisions",
    "what the service decided, by the day on which it was logged; never from an inbox",
    {
        "decision_id": Column("VARCHAR", is_unique=True),
        "at_us": Column("BIGINT", meaning="when it was decided, microseconds since 1970 UTC"),
        "event_us": Column("BIGINT", meaning="when the event happened"),
        "event_table": Column("VARCHAR", values=("requests", "payments", "accounts")),
        "event_id": Column("VARCHAR", meaning="of the event in its table; an event can be decided more than once"),
        "account_id": _ID,
        "detector": Column("VARCHAR"),
        "release": Column("VARCHAR", meaning="digest of the release that scored it"),
        "policy": Column("VARCHAR"),
        "policy_version": Column("INTEGER"),
        "policy_digest": Column("VARCHAR"),
        "role": Column("VARCHAR", meaning="champion, or a role that acts on nobody"),
        "action": Column("VARCHAR"),
        "labels": Column("VARCHAR[]", meaning="those that reached their threshold"),
        "scores": Column("MAP(VARCHAR, DOUBLE)", is_nullable=True, meaning="by label; null where it was not scored"),
        "degraded": Column("BOOLEAN", meaning="answered without a score, as the policy says"),
        "caller": Column("VARCHAR", meaning="name of the API key"),
        "record": Column("VARCHAR", meaning="the logged record as JSON, without the text: all that a replay needs"),
    },
)

EVENT_TABLES = {table.name: table for table in (REQUESTS, PAYMENTS, ACCOUNTS)}
TABLES = {**EVENT_TABLES, LABELS.name: LABELS}
ENTITIES = ("account_id", "ip", "card_id", "merchant_id", "device_id")
