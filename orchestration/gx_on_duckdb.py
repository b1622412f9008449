"""Runs Great Expectations on a DuckDB file; holds the one patch that version 1.24 needs for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.gx import Expectation, ProgressBarsConfig, SqlAlchemyExecutionEngine, gx

PATCHED_VERSIONS = ("1.24.",)
_EXAMPLES = {"result_format": "SUMMARY", "partial_unexpected_count": 5}
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
    results = _validate(batch, dict(enumerate(expectations)), {"result_format": "BOOLEAN_ONLY"})
    # Examples cost scans of their own for each expectation, so they are looked for only where something is bad.
    bad = {i: expectations[i] for i, result in results.items() if not result.success and not _error(result)}
    if bad:
        results |= _validate(batch, bad, {**_EXAMPLES, "unexpected_index_column_names": [id_column]})
    return [_outcome(results[i], id_column) for i in sorted(results)]


def _validate(batch: Any, expectations: Mapping[int, Expectation], result_format: dict[str, Any]) -> dict[int, Any]:
    """The results by position: they do not come in the order of the suite, as one that raised comes first."""
    named = [expectation.copy(update={"meta": {"position": i}}) for i, expectation in expectations.items()]
    report = batch.validate(gx.ExpectationSuite(name="batch", expectations=named), result_format=result_format)
    return {result.expectation_config.meta["position"]: result for result in report.results}


def _outcome(result: Any, id_column: str) -> Outcome:
    config, found = result.expectation_config, result.result
    if error := _error(result):
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


def _error(result: Any) -> str | None:
    """The message of an exception; `info` is flat when nothing was raised, one entry per metric otherwise."""
    info = result.exception_info
    infos = [info] if "raised_exception" in info else list(info.values())
    return next((i["exception_message"] for i in infos if i["raised_exception"]), None)


def _expected(kwargs: dict[str, Any]) -> str:
    hidden = {"batch_id", "column", "column_A", "mostly", "result_format"}
    return ", ".join(f"{k}={v}" for k, v in kwargs.items() if k not in hidden and v is not None)
