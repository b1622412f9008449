"""The lake's contract as SQL over a foreign file: what each column becomes, and which rows break it and why."""

from datetime import date

from feature_repo.lake import DAY_US, start_us
from feature_repo.tables import EVENT_TABLES, Column
from orchestration.mapping import Mapping, quoted

Flaw = tuple[str, str, str]  # an SQL test, the column, and the class of value that it finds

LONGEST_ID = 64


def named_sql(mapping: Mapping) -> str:
    """SELECT that gives the file's values the lake's names, still as text."""
    time = mapping.time.sql(mapping.event_id.sql)
    split = mapping.split.sql(mapping.event_id.sql) if mapping.split else "NULL"
    columns = ["_row AS row", f"CAST({mapping.event_id.sql} AS VARCHAR) AS event_id", f"{time} AS event_us"]
    columns.append(f"CAST({split} AS VARCHAR) AS split")
    for name in _columns(mapping):
        found = mapping.columns[name].sql if name in mapping.columns else "NULL"
        unmapped_arrival = name == "arrived_us" and name not in mapping.columns
        columns.append(f"CAST({time if unmapped_arrival else found} AS VARCHAR) AS {_text(name)}")
    columns += [f"{label.sql} AS {quoted('label_' + name)}" for name, label in mapping.labels.items()]
    return f"SELECT {', '.join(columns)}"


def judged_sql(mapping: Mapping, *, now_us: int) -> str:
    """SELECT that gives those texts the lake's types, and each row the first `flaw` found in it, as `column|class`.

    `now_us` is when the lake comes to know them: what lies after it is no fact yet.
    """
    columns = _columns(mapping)
    flaws = [*_own_flaws(mapping, now_us), *(flaw for name, column in columns.items() for flaw in _flaws(name, column))]
    flaws += _order_flaws(_typed("arrived_us", columns["arrived_us"]), now_us)
    whens = " ".join(f"WHEN {test} THEN '{column}|{reason}'" for test, column, reason in flaws)
    kept = ["row", "event_id", "event_us", "split", *(quoted("label_" + name) for name in mapping.labels)]
    typed = [f"{_typed(name, column)} AS {name}" for name, column in columns.items()]
    return f"SELECT {', '.join(kept + typed)}, CASE {whens} END AS flaw"


def _columns(mapping: Mapping) -> dict[str, Column]:
    """The columns of the table that are made one by one."""
    columns = EVENT_TABLES[mapping.table].columns
    return {name: column for name, column in columns.items() if name not in ("event_id", "event_us")}


def _own_flaws(mapping: Mapping, now_us: int) -> list[Flaw]:
    """What may be wrong with a row's id, moment, split and labels."""
    first = "row_number() OVER (PARTITION BY event_id ORDER BY row) = 1"
    pattern = EVENT_TABLES[mapping.table].columns["event_id"].pattern
    flaws = [
        ("event_id IS NULL", "event_id", "null"),
        (f"length(event_id) > {LONGEST_ID}", "event_id", "too long"),
        (f"NOT regexp_matches(event_id, '{pattern}')", "event_id", "not an id"),
        (f"NOT ({first})", "event_id", "repeated"),
        ("event_us IS NULL", "event_us", "not a moment"),
        ("event_us < 0", "event_us", "before 1970"),
        (f"event_us >= {_end_us(mapping)}", "event_us", "after the year 9999"),
        (f"event_us > {now_us}", "event_us", "in the future"),
        ("split = '?'", "split", "not a known value"),
    ]
    return flaws + [(f"{quoted('label_' + name)} = -1", name, "not a known value") for name in mapping.labels]


def _order_flaws(arrived_us: str, now_us: int) -> list[Flaw]:
    """What may be wrong with when an event arrived; an arrival that is not mapped is the event's own moment."""
    return [
        (f"{arrived_us} > {now_us}", "arrived_us", "in the future"),
        (f"{arrived_us} < event_us", "arrived_us", "before the event"),
    ]


def _end_us(mapping: Mapping) -> int:
    """The first moment that, or whose labels, belong to a day without a date; the lake's folders are dates."""
    return start_us(date.max) + DAY_US - int(mapping.labels_known_after_days * DAY_US)


def _flaws(name: str, column: Column) -> list[Flaw]:
    """What may be wrong with a value of a column."""
    text, typed, flaws = _text(name), _typed(name, column), []
    if not column.is_nullable:
        flaws.append((f"{text} IS NULL", name, "null"))
    if column.type != "VARCHAR":
        flaws.append((f"{text} IS NOT NULL AND ({typed} IS NULL OR isnan({typed}))", name, "not a number"))
    if column.minimum is not None:
        flaws.append((f"{typed} < {column.minimum}", name, f"below {column.minimum:g}"))
    if column.maximum is not None:
        flaws.append((f"{typed} > {column.maximum}", name, f"above {column.maximum:g}"))
    if column.values:
        allowed = ", ".join(f"'{value}'" for value in column.values)
        flaws.append((f"{text} NOT IN ({allowed})", name, "not an allowed value"))
    if column.pattern:
        flaws.append((f"length({text}) > {LONGEST_ID}", name, "too long"))
        flaws.append((f"NOT regexp_matches({text}, '{column.pattern}')", name, "not an id"))
    return flaws


def _text(name: str) -> str:
    return quoted(f"text_{name}")


def _typed(name: str, column: Column) -> str:
    return _text(name) if column.type == "VARCHAR" else f"TRY_CAST({_text(name)} AS {column.type})"
