"""Runs Great Expectations on a DuckDB file; holds the one patch that version 1.24 needs for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.gx import Expectation, ProgressBarsConfig, SqlAlchemyExecutionEngine, gx

PATCHED_VERSIONS = ("1.24.",)
NUM_EXAMPLES = 5
unpatched = SqlAlchemyExecutionEngine.execute_query


class NotEvaluated(RuntimeError):
    """An expectation raised, so nothing is known about the data: an error of ours, never a verdict on a batch."""


@dataclass(frozen=True)
class Outcome:
    """What one expectation found; `examples` are ids of bad rows, never their contents."""

    expectation: str
    column: str | None
    expected: str
    passed: bool
    num_bad: int
    examples: tuple[str, ...] = ()


def _execute_query(self: Any, query: Any) -> Any:
    """Read the rows before the connection closes; DuckDB has none to give afterwards."""
    with self.get_connection() as connection:
        return self._execute_query_with_recovery(connection, query).freeze()()


def _patch() -> None:
    if gx.__version__.startswith(PATCHED_VERSIONS):
        SqlAlchemyExecutionEngine.execute_query = _execute_query


def check(database: Path, view: str, expectations: Sequence[Expectation], *, id_column: str) -> list[Outcome]:
    """Evaluate expectations on one view of a DuckDB file, in the order given; raises NotEvaluated.

    The process keeps the file open afterwards: write it before, and only once.
    """
    _patch()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_sql("lake", connection_string=f"duckdb:///{database}")
    batch = source.add_table_asset(view, table_name=view).add_batch_definition_whole_table("all").get_batch()
    named = [expectation.copy(update={"meta": {"position": i}}) for i, expectation in enumerate(expectations)]
    result_format = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": [id_column],
        "partial_unexpected_count": NUM_EXAMPLES,
    }
    report = batch.validate(gx.ExpectationSuite(name=view, expectations=named), result_format=result_format)
    # Results do not come in the order of the suite: one that raised comes first.
    results = sorted(report.results, key=lambda result: result.expectation_config.meta["position"])
    return [_outcome(result, id_column) for result in results]


def _outcome(result: Any, id_column: str) -> Outcome:
    config, found = result.expectation_config, result.result
    if error := _error(result.exception_info):
        raise NotEvaluated(f"{config.type} on {config.kwargs.get('column')}: {error.splitlines()[0]}")
    ids = [str(row[id_column]) for row in found.get("partial_unexpected_index_list") or ()]
    passed = bool(result.success)
    return Outcome(
        expectation=config.type,
        column=config.kwargs.get("column") or config.kwargs.get("column_A"),
        expected=_expected(config.kwargs),
        passed=passed,
        num_bad=int(found.get("unexpected_count") or (0 if passed else 1)),
        examples=tuple(dict.fromkeys(ids)),
    )


def _error(info: dict[str, Any]) -> str | None:
    """The message of an exception; `info` is flat when nothing was raised, one entry per metric when something was."""
    infos = [info] if "raised_exception" in info else list(info.values())
    return next((i["exception_message"] for i in infos if i["raised_exception"]), None)


def _expected(kwargs: dict[str, Any]) -> str:
    hidden = {"batch_id", "column", "column_A", "mostly", "result_format"}
    return ", ".join(f"{k}={v}" for k, v in kwargs.items() if k not in hidden and v is not None)
