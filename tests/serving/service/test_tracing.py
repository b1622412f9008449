"""Spans of real requests, by the SDK's in-memory exporter; and that nothing is imported while traces are off."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from serving.bundle import Bundle
from serving.parts import Parts
from serving.tracing import Tracing, provider
from tests.serving.service.conftest import Team
from tests.serving.service.served import served
from tests.serving.service.test_service import SPAM, decide

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def parts(team: Team, key: str, first: Bundle, exported: InMemorySpanExporter) -> Iterator[Parts]:
    traced = TracerProvider()
    traced.add_span_processor(SimpleSpanProcessor(exported))
    made = Parts(team.home, tracing=Tracing(traced))
    made.tick()
    yield made
    made.close()


def by_name(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exported.get_finished_spans()}


def test_a_request_is_one_trace_below_its_callers_with_a_span_for_each_part(
    client: TestClient, exported: InMemorySpanExporter, first: Bundle
) -> None:
    asked = {"detector": "content", "event": {"text": SPAM, "account_id": "ann"}}

    client.post("/v1/decisions", json=asked, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})

    spans = by_name(exported)
    root = spans.pop("POST /v1/decisions")
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/decisions",
        "http.response.status_code": 200,
    }
    assert list(spans) == ["features", "score", "decide", "log"]
    assert {span.parent.span_id for span in spans.values()} == {root.context.span_id}
    times = [(span.start_time, span.end_time) for span in spans.values()]
    assert times == sorted(times)
    assert root.start_time <= times[0][0] <= times[-1][1] <= root.end_time
    assert spans["score"].attributes["mews.release"] == first.digest


def test_no_span_holds_a_text_a_key_or_an_id_of_a_person(
    client: TestClient, exported: InMemorySpanExporter, key: str
) -> None:
    decide(client, SPAM, account_id="ann-4711", event_id="event-4711")
    decide(client, SPAM, kind="a secret that somebody wrote")
    client.get("/a/path/that/somebody/made")

    said = json.dumps([json.loads(span.to_json()) for span in exported.get_finished_spans()])

    assert {"POST /v1/decisions", "GET other"} <= set(by_name(exported))
    assert not [word for word in (*SPAM.split(), "4711", "secret", "somebody", key, key[:12]) if word in said]


def test_a_failed_request_is_marked_without_its_message(
    parts: Parts, client: TestClient, exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"about {SPAM}")

    monkeypatch.setattr(parts.log, "write", fail)

    assert decide(client, SPAM).status_code == 500

    spans = by_name(exported)
    assert not spans["POST /v1/decisions"].status.is_ok
    assert not [span.name for span in spans.values() if span.events or span.status.description]


def test_while_traces_are_off_nothing_that_traces_is_imported() -> None:
    tracing = "('opentelemetry.sdk.trace', 'opentelemetry.propagate', 'opentelemetry.exporter')"
    asked = f"import sys, serving.parts; print([name for name in sys.modules if name.startswith({tracing})])"

    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
    assert provider() is None


def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")

    with pytest.raises(ValueError, match=r"'pigeon'; installed: .*console"):
        provider()


def test_spans_leave_by_opentelemetrys_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        tracing = Tracing(provider())
        with tracing.span("log"):
            pass
        tracing.close()
        collector.shutdown()

    [(path, body)] = received
    assert path == "/v1/traces"
    [resource] = ExportTraceServiceRequest.FromString(body).resource_spans
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["log"]


def test_the_standard_variables_turn_traces_on_for_our_routes_and_for_bentomls(
    team: Team, first: Bundle, key: str, tmp_path: Path
) -> None:
    log, headers = tmp_path / "service.log", {"authorization": f"Bearer {key}"}
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "mews-of-a-test"}
    with served(team.home, env=env, log=log) as server, httpx.Client(base_url=server.url, headers=headers) as caller:
        caller.post("/v1/decisions", json={"detector": "content", "event": {"text": SPAM}}).raise_for_status()
        caller.post("/v1/tables", json={"detector": "content", "rows": [{"text": SPAM}]}).raise_for_status()

    said = log.read_text()
    assert '"name": "POST /v1/decisions"' in said
    assert '"name": "score"' in said
    assert '"http.route": "/v1/tables"' in said
    assert '"name": "POST /v1/tables http receive"' in said  # BentoML's own
    assert '"service.name": "mews-of-a-test"' in said
    assert not [word for word in SPAM.split() if word in said]
