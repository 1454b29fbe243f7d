"""Spans: one for each request that asked the model, and only where the environment asks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from octavo.environment import traces_wanted
from octavo.server.tracing import Tracing
from tests.cli.process import end, environ
from tests.gate import PATIENCE
from tests.server.live import Live, leave, until
from tests.server.test_ends import ask, serving

COMPLETIONS = "/v1/completions"
ASKED = {"prompt": "a secret", "max_tokens": 3, "ignore_eos": True}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(live: Live) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    live.service.trace = Tracing(provider).tell
    yield exporter
    live.service.trace = None


def one(spans: InMemorySpanExporter) -> ReadableSpan:
    until(lambda: len(spans.get_finished_spans()) == 1)
    (span,) = spans.get_finished_spans()
    return span


def test_an_answer_is_a_span_under_its_callers(live: Live, spans: InMemorySpanExporter) -> None:
    parent = f"00-{TRACE}-{PARENT}-01"
    live.get("/v1/models")
    live.post(COMPLETIONS, ASKED, traceparent=parent, x_request_id="mine")
    span = one(spans)
    assert span.name == "text_completion tiny"
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert 0 < (span.start_time or 0) < (span.end_time or 0)
    found = dict(span.attributes or {})
    first, queued = (found.pop(f"gen_ai.latency.{name}") for name in ("time_to_first_token",
                                                                      "time_in_queue"))  # fmt: skip
    assert isinstance(first, float)
    assert isinstance(queued, float)
    assert 0 <= queued <= first < PATIENCE
    assert found == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "octavo",
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 8,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "http.response.status_code": 200,
        "octavo.request_id": "mine",
    }


def test_a_refusal(live: Live, spans: InMemorySpanExporter) -> None:
    live.post(COMPLETIONS, {**ASKED, "nonsense": 1}, traceparent="no such thing")
    span = one(spans)
    assert span.parent is None
    assert span.attributes["http.response.status_code"] == 400
    assert span.attributes["error.type"] == "BodyError"
    assert span.status.is_unset


def test_a_client_that_left(
    live: Live, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(live, monkeypatch, ASKED)
    assert one(spans).attributes["error.type"] == "client_gone"


@pytest.mark.parametrize(
    ("told", "wanted"),
    [({}, False),
     ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
     ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
     ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
     ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False)],
)  # fmt: skip
def test_who_asks_for_spans(
    told: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert traces_wanted() == wanted


def test_a_server_sends_them_before_it_ends(tiny_path: Path) -> None:
    sent: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            sent.append((self.path, self.rfile.read(length)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        where = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
        off = {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        with serving(tiny_path, env={**environ(), **where, **off}) as (process, port):
            with ask(port, ASKED) as response:
                assert response.read()
            process.send_signal(signal.SIGTERM)
            assert end(process).code == 0
        collector.shutdown()
        thread.join()
    ((path, body),) = sent
    assert path == "/v1/traces"
    assert b"text_completion" in body
    assert b"a secret" not in body
