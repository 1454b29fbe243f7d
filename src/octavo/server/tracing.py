"""Spans of OpenTelemetry, one for each request that asked the model, with the GenAI names.

Made at a request's end out of its Outcome; a caller's `traceparent` is its parent. Without a word
of prompts or answers. Where spans go is said by OpenTelemetry's own environment variables.
"""

from __future__ import annotations

import threading
import time
from types import MappingProxyType

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from octavo.server.outcome import Outcome

_LAST_SECONDS = 3.0
_OPERATIONS = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/completions": "text_completion",
        "/v1/embeddings": "embeddings",
        "/v1/messages": "chat",
        "/v1/responses": "chat",
    }
)


class Tracing:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("octavo")
        self._parents = TraceContextTextMapPropagator()

    def tell(self, outcome: Outcome, model: str) -> None:
        """Make the span of a request that has ended."""
        operation = _OPERATIONS.get(outcome.route or "")
        if operation is None:
            return
        end = time.time_ns()
        parent = None
        if outcome.traceparent is not None:
            parent = self._parents.extract({"traceparent": outcome.traceparent})
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=parent,
            kind=SpanKind.SERVER,
            start_time=end - int(outcome.seconds * 1e9),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "octavo",
                "gen_ai.response.model": model,
                "http.response.status_code": outcome.code,
                "octavo.request_id": outcome.id,
                **_figures(outcome),
            },
        )
        if outcome.code >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what was not sent yet. Who collects may be away: the server ends all the same."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_LAST_SECONDS)


def open_tracing() -> Tracing:
    """Spans go by OTLP over HTTP to where the environment says."""
    named = Resource.create({"service.name": "octavo"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _figures(outcome: Outcome) -> dict[str, AttributeValue]:
    """What is known of it; times in seconds."""
    found: dict[str, AttributeValue] = {}
    if outcome.prompts:
        found["gen_ai.usage.input_tokens"] = sum(map(len, outcome.prompts))
    outputs = list(outcome.outputs.values())
    if outcome.num_generated is not None:
        found["gen_ai.usage.output_tokens"] = outcome.num_generated
    if outputs:
        found["gen_ai.usage.cache_read.input_tokens"] = sum(o.usage.cached_tokens for o in outputs)
        found["gen_ai.response.finish_reasons"] = outcome.finish
        metrics = outputs[0].metrics
        if metrics.ttft_ms is not None:
            found["gen_ai.latency.time_to_first_token"] = metrics.ttft_ms / 1e3
        if metrics.queue_ms is not None:
            found["gen_ai.latency.time_in_queue"] = metrics.queue_ms / 1e3
    if outcome.error is not None:
        found["error.type"] = type(outcome.error).__name__
    elif outcome.is_gone:
        found["error.type"] = "client_gone"
    return found
