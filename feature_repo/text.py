"""The SQL text of a view, from the table of windows; the same text runs on DuckDB and on Spark."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from feature_repo.view import View, Window

_SQL = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "sql"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701  # SQL from our own table of windows, no text of users
)


def _start(window: Window, us: str) -> str:
    """The first microsecond that a window covers; no integer division, which the engines spell differently."""
    edge = f"({us} - {window.span_us})"
    return f"{edge} - {edge} % {window.grain_us}"


def _end(window: Window, us: str) -> str:
    """The first microsecond at which a window no longer covers a fact of this one."""
    return f"({us} - {us} % {window.grain_us} + {window.span_us + window.grain_us})"


_SQL.globals |= {"start": _start, "end": _end}


def facts(view: View) -> str:
    """The facts of a view: (entity, us, known_us, event_id, and the columns that its measures take)."""
    columns = ", ".join([f"{view.entity} AS entity", "us", "known_us", "event_id", *view.sums, *view.values])
    selects = [
        f"SELECT {columns} FROM ({_SQL.get_template(f'facts_{table}.sql').render()}) AS {table}_facts "  # noqa: S608
        f"WHERE {view.entity} IS NOT NULL"
        for table in view.facts
    ]
    return "\nUNION ALL\n".join(selects)


def near(view: View, facts: str) -> str:
    """Of some facts, those that can matter at `moments`; all others cost nothing further."""
    return _SQL.get_template("near.sql.j2").render(view=view, facts=facts)


def moments(view: View, *, tables: list[str], first_us: int, end_us: int) -> str:
    """The distinct (entity, us) at which the events of some tables ask for a view."""
    template = _SQL.get_template("moments.sql.j2")
    return template.render(entity=view.entity, tables=tables, first_us=first_us, end_us=end_us)


def points(view: View) -> str:
    """`moments` with the knowledge by which each is answered: (entity, us, created)."""
    return _SQL.get_template("points.sql.j2").render(view=view)


def features(view: View) -> str:
    """The features of a view at `points`, over `facts`."""
    return _SQL.get_template(f"{view.template}.sql.j2").render(view=view)
