"""Traces of requests by OpenTelemetry, configured by its standard variables; off, and not even imported, by default.

`OTEL_TRACES_EXPORTER` turns them on; endpoint, sampler, resource and batching have their own variables
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). BentoML brings the SDK and traces
its own routes by the same provider. What a span says comes from closed sets: never a text, a key or an id of a person.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int | bool]
Finish = Callable[[str, int], None]  # of a request: its route and its status
_NOTHING: AbstractContextManager[None] = nullcontext()


def provider() -> "TracerProvider | None":
    """What the standard variables ask for: None where traces are off; raises ValueError for an unknown exporter."""
    name = os.environ.get("OTEL_TRACES_EXPORTER", "none")
    if name in ("", "none") or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    known = entry_points(group="opentelemetry_traces_exporter")
    if name not in known.names:
        installed = ", ".join(sorted(known.names))
        raise ValueError(f"OTEL_TRACES_EXPORTER is {name!r}; installed: {installed} (pip install .[trace] adds otlp)")
    found = TracerProvider()
    found.add_span_processor(BatchSpanProcessor(known[name].load()()))
    return found


class Telemetry(NamedTuple):
    """What an operator sees: how much, and how long."""

    metrics: Metrics
    tracing: "Tracing"


class Tracing:
    """Spans of one process; without a provider every call does nothing."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("mews") if provider else None

    @contextmanager
    def request(self, headers: Mapping[bytes, bytes], method: str) -> Iterator[Finish]:
        """A request's span below whatever its `traceparent` names; call what is given when the answer is known."""
        if self._tracer is None:
            yield _ignore
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode

        parent = extract({name: headers.get(name.encode(), b"").decode("latin-1") for name in _PROPAGATED})
        verb = method if method in _METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            verb, parent, kind=SpanKind.SERVER, attributes={"http.request.method": verb}, record_exception=False
        ) as span:

            def finish(route: str, status: int) -> None:
                span.update_name(f"{verb} {route}")
                span.set_attributes({"http.route": route, "http.response.status_code": status})
                if status >= 500:
                    span.set_status(Status(StatusCode.ERROR))

            yield finish

    @property
    def is_on(self) -> bool:
        """Whether anybody looks."""
        return self._tracer is not None

    def span(self, name: str, attributes: Attributes | None = None) -> AbstractContextManager[Any]:
        """A part of the request that is under way; an error's message, which may repeat a text, is not recorded."""
        if self._tracer is None:
            return _NOTHING
        return self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        )

    def past(self, name: str, begun_ns: int, ended_ns: int, attributes: Attributes | None = None) -> None:
        """A part that ran elsewhere, for instance in one batch with other requests."""
        if self._tracer is not None:
            self._tracer.start_span(name, attributes=attributes, start_time=begun_ns).end(ended_ns)

    def close(self) -> None:
        """Export what is waiting."""
        if self._provider:
            self._provider.shutdown()


_PROPAGATED = ("traceparent", "tracestate")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def _ignore(_route: str, _status: int) -> None:
    """Nobody wants to know."""
