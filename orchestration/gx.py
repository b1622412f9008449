"""Great Expectations, imported without Spark: every other module here takes it from this one.

Where pyspark is installed, its import would load all of it for an engine that is not used here; and Spark Connect ends
any process whose main module is no file, which is how Dagster's code server starts its runs.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let an installed package look absent, unless it is in use already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python takes for "not there"
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("pyspark"), _hidden("pyspark.sql.connect"):
    import great_expectations
    from great_expectations import expectations as gxe
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.expectations.expectation import Expectation

gx: ModuleType = great_expectations

__all__ = ["Expectation", "ProgressBarsConfig", "SqlAlchemyExecutionEngine", "gx", "gxe"]
