"""/metrics: what is counted and when, in figures; and that no client can name a label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from octavo.server.auth import Keys
from octavo.server.config import ServerConfig
from octavo.server.metrics import metrics_text
from octavo.server.service import Service
from octavo.server.tally import Histogram
from tests.server.live import Live, leave, talk, until

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 6, "ignore_eos": True}
MODEL = (("model_name", "tiny"),)

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


@pytest.fixture
def fresh(tiny_path: Path) -> Iterator[Live]:
    """A server that has counted nothing yet, and takes any name for its model's."""
    with Live(tiny_path, served_model_name=["*"]) as server:
        yield server


def samples(text: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed(text.decode())
        for sample in family.samples
    }


def scrape(live: Live) -> Samples:
    answer = live.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.body)


def test_two_equal_chats(fresh: Live) -> None:
    for stream in (False, True):
        fresh.post(CHAT, {**HI, "stream": stream, "user": "me"})
    route = (("route", CHAT), ("status", "200"))
    until(lambda: scrape(fresh).get(("octavo:requests_total", route)) == 2)
    found = scrape(fresh)
    prompt = fresh.post(CHAT, HI).json["usage"]["prompt_tokens"]
    expected = {
        "vllm:prompt_tokens_total": 2 * prompt,
        "vllm:generation_tokens_total": 12,
        "vllm:prefix_cache_queries_total": 2 * prompt,
        "vllm:prefix_cache_hits_total": prompt - 1,
        "vllm:num_requests_running": 0,
        "vllm:num_requests_waiting": 0,
        "vllm:kv_cache_usage_perc": 0,
        "vllm:num_preemptions_total": 0,
        "vllm:time_to_first_token_seconds_count": 2,
        "vllm:inter_token_latency_seconds_count": 10,
        "vllm:request_queue_time_seconds_count": 2,
        "vllm:e2e_request_latency_seconds_count": 2,
        "vllm:request_prompt_tokens_sum": 2 * prompt,
        "vllm:request_generation_tokens_sum": 12,
        "octavo:cancels_total": 0,
        "octavo:mask_seconds_total": 0,
    }
    assert {name: found[name, MODEL] for name in expected} == expected
    reasons = ("finished_reason", "length"), *MODEL
    assert found["vllm:request_success_total", reasons] == 2
    assert found["octavo:prefix_cache_misses_total", (*MODEL, ("reason", "cold"))] == 1
    assert found["octavo:kv_kept_bytes", MODEL] > 0
    assert found["octavo:noted_fields_total", ()] == 2
    assert found["octavo:streams", ()] == 0
    assert found["octavo:connections", ()] == 1  # the one that asks
    assert found["process_resident_memory_bytes", ()] > 0


def test_what_masks_take_is_part_of_a_step(fresh: Live) -> None:
    asked = {**HI, "ignore_eos": False, "response_format": {"type": "json_object"}}
    assert fresh.post(CHAT, asked).status == 200
    found = scrape(fresh)
    masks, steps = (found[f"octavo:{what}_seconds_total", MODEL] for what in ("mask", "step"))
    assert 0 < masks < steps


def test_what_is_refused_is_counted_wherever_it_is(fresh: Live) -> None:
    assert fresh.post(CHAT, {**HI, "nonsense": 1}).status == 400
    assert fresh.get("/nowhere").status == 404
    assert fresh.get(CHAT).status == 405
    assert fresh.get("/health", host="evil.example").status == 403
    assert fresh.ask("POST", CHAT, b"{}", content_type="text/plain").status == 415
    assert b"400 Refused" in talk(fresh, b"nonsense\r\n\r\n")
    assert b"431 Refused" in talk(fresh, b"GET /", *[b"a" * 8000] * 20)
    statuses = {"400": 2.0, "403": 1.0, "404": 1.0, "405": 1.0, "415": 1.0, "431": 1.0}

    def counted() -> dict[str, float]:
        found = scrape(fresh).items()
        return {labels[0][1]: n for (name, labels), n in found if name == "octavo:refusals_total"}

    until(lambda: counted() == statuses)
    found = scrape(fresh)
    assert found["octavo:requests_total", (("route", CHAT), ("status", "400"))] == 1
    assert found["octavo:requests_total", (("route", "none"), ("status", "404"))] == 1
    assert ("vllm:time_to_first_token_seconds_sum", MODEL) in found
    assert found["vllm:e2e_request_latency_seconds_count", MODEL] == 0


def test_a_client_that_leaves_is_counted(fresh: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(fresh, monkeypatch, {"prompt": "x"})
    gone = (("route", COMPLETIONS), ("status", "499"))
    until(lambda: scrape(fresh).get(("octavo:requests_total", gone)) == 1)
    until(lambda: scrape(fresh)["octavo:cancels_total", MODEL] == 1)
    assert scrape(fresh)["octavo:streams", ()] == 0


def test_no_label_is_a_clients(fresh: Live) -> None:
    asked = {**HI, "model": "chosen", "user": "chosen", "cache_salt": "chosen"}
    assert fresh.post(CHAT, asked, x_request_id="chosen").status == 200
    fresh.get("/chosen")
    fresh.get("/v1/cache/requests/chosen")
    fresh.post(CHAT, {**HI, "chosen": 1})
    assert b"chosen" not in fresh.get("/metrics").body


def test_a_model_that_is_not_loaded_yet_has_no_figures() -> None:
    found = samples(metrics_text(Service(ServerConfig(), Keys())))
    assert found["octavo:connections", ()] == 0
    assert not [name for name, _ in found if name.startswith("vllm:")]


def test_a_histogram_counts_a_bound_below_it() -> None:
    found = Histogram((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 1), (1.5, 3), (9.0, 1)):
        found.add(value, times)
    assert list(found.buckets()) == [(1.0, 2), (2.0, 5), (float("inf"), 6)]
    assert found.sum == 15.0
