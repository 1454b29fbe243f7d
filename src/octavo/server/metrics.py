"""/metrics: the engine's totals and the server's tally in Prometheus's text, under vLLM's names
where they mean the same, else under `octavo:`.

Everything is worked out when it is asked for. No label has a value that a client can choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client import generate_latest as text_of
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from octavo.records import CacheReason, Totals
from octavo.request import FinishReason
from octavo.server.service import Loaded, Service
from octavo.server.tally import Histogram

MEDIA_TYPE = CONTENT_TYPE_LATEST


def metrics_text(service: Service) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Metrics(service))
    ProcessCollector(registry=registry)
    return text_of(registry)


class _Metrics(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        yield from _of_server(self._service)
        model = self._service.model
        if model is not None:
            yield from _of_model(model)
            yield from _of_totals(model.names[0], model.engine.totals)
            yield from _of_requests(model.names[0], self._service)


def _of_server(service: Service) -> Iterator[Metric]:
    tally = service.tally
    yield _gauge("octavo:connections", "Connections that are open", tally.connections)
    yield _gauge("octavo:streams", "Streamed answers that are open", tally.streams)
    requests = CounterMetricFamily(
        "octavo:requests",
        "Requests that have ended; 499: the client left before",
        labels=("route", "status"),
    )
    for (route, status), count in sorted(tally.requests.items()):
        requests.add_metric((route, str(status)), count)
    yield requests
    yield _counters(
        "octavo:refusals",
        "Requests and connections that were refused",
        "status",
        {str(status): count for status, count in sorted(tally.refusals.items())},
    )
    yield _counter(
        "octavo:noted_fields", "Fields that were given and change no answer", tally.noted_fields
    )


def _of_model(model: Loaded) -> Iterator[Metric]:
    name, places, counts = model.names[0], model.admission, model.engine.stats()
    waiting, running = places.num_waiting, places.num_open - places.num_waiting
    usage = _whole(counts, "kv_blocks_used") / _whole(counts, "kv_blocks_total")
    yield _gauge("vllm:num_requests_running", "Requests that run", running, name)
    yield _gauge("vllm:num_requests_waiting", "Requests that wait to run", waiting, name)
    yield _gauge("vllm:kv_cache_usage_perc", "Used KV blocks; 1 is all", usage, name)
    pinned = _whole(counts, "kv_blocks_pinned")
    yield _gauge("octavo:kv_pinned_blocks", "KV blocks that are pinned", pinned, name)
    for what, help in (
        ("used", "K and V of running requests"),
        ("kept", "K and V that are kept for reuse"),
        ("empty", "Memory for K and V that holds none and is not given back"),
    ):
        yield _gauge(f"octavo:kv_{what}_bytes", help, _whole(counts, f"kv_bytes_{what}"), name)


def _of_totals(name: str, totals: Totals) -> Iterator[Metric]:
    for metric, help, count in (
        ("vllm:prompt_tokens", "Tokens of prompts that have begun", totals.prompt_tokens),
        ("vllm:generation_tokens", "Tokens that were generated", totals.generated_tokens),
        ("vllm:prefix_cache_queries", "Tokens looked for in the cache", totals.queried_tokens),
        ("vllm:prefix_cache_hits", "Tokens found in the cache", totals.matched_tokens),
        ("vllm:num_preemptions", "Requests that gave up their blocks", totals.preemptions),
        ("octavo:cancels", "Requests that nobody read any more", totals.cancels),
        ("octavo:steps", "Steps of the engine", totals.steps),
        ("octavo:computed_tokens", "Tokens whose K and V were computed", totals.computed_tokens),
        ("octavo:step_seconds", "Seconds in steps", totals.step_seconds),
        ("octavo:forward_seconds", "Seconds of them in the model", totals.forward_seconds),
        ("octavo:mask_seconds", "Seconds of them in masks of grammars", totals.mask_seconds),
    ):  # fmt: skip
        yield _counter(metric, help, count, name)
    finished: Mapping[str, int] = {
        reason: totals.finished.get(reason, 0) for reason in get_args(FinishReason)
    }
    yield _counters(
        "vllm:request_success", "Answers by what ended them", "finished_reason", finished, name
    )
    misses = {str(reason): totals.misses.get(reason, 0) for reason in CacheReason}
    yield _counters(
        "octavo:prefix_cache_misses",
        "Requests whose prompts were not found whole, by the reason",
        "reason",
        misses,
        name,
    )


def _of_requests(name: str, service: Service) -> Iterator[Metric]:
    """One observation a prompt; between tokens, the mean of an answer counts for each of them."""
    tally = service.tally
    for metric, help, histogram in (
        ("vllm:time_to_first_token_seconds", "Time to the first token", tally.time_to_first_token),
        ("vllm:inter_token_latency_seconds", "Time between two tokens", tally.inter_token),
        ("vllm:request_queue_time_seconds", "Time in the queue", tally.queue),
        ("vllm:e2e_request_latency_seconds", "Whole requests", tally.end_to_end),
        ("vllm:request_prompt_tokens", "Tokens of a prompt", tally.prompt_tokens),
        ("vllm:request_generation_tokens", "Tokens of its answers", tally.generation_tokens),
    ):  # fmt: skip
        yield _histogram(metric, help, histogram, name)


def _whole(counts: Mapping[str, object], name: str) -> int:
    count = counts[name]
    assert isinstance(count, int), name
    return count


def _gauge(metric: str, help: str, value: float, model: str | None = None) -> Metric:
    labels, values = _model_label(model)
    family = GaugeMetricFamily(metric, help, labels=labels)
    family.add_metric(values, value)
    return family


def _counter(metric: str, help: str, value: float, model: str | None = None) -> Metric:
    labels, values = _model_label(model)
    family = CounterMetricFamily(metric, help, labels=labels)
    family.add_metric(values, value)
    return family


def _counters(
    metric: str, help: str, label: str, counts: Mapping[str, int], model: str | None = None
) -> Metric:
    labels, values = _model_label(model)
    family = CounterMetricFamily(metric, help, labels=(*labels, label))
    for name, count in counts.items():
        family.add_metric((*values, name), count)
    return family


def _histogram(metric: str, help: str, histogram: Histogram, model: str) -> Metric:
    family = HistogramMetricFamily(metric, help, labels=("model_name",))
    buckets = [
        ("+Inf" if bound == float("inf") else str(bound), float(count))
        for bound, count in histogram.buckets()
    ]
    family.add_metric((model,), buckets, histogram.sum)
    return family


def _model_label(model: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The name that the server has for its model, whatever a client called it."""
    return ((), ()) if model is None else (("model_name",), (model,))
