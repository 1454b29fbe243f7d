"""What every body is held to: fields known by name, kinds, and errors in OpenAI's schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from octavo import errors
from octavo.protocol.bodies import Body, BodyError, read_body
from octavo.protocol.chat import parse_chat
from octavo.protocol.common import cache_of, error_body, failure, status_of
from octavo.protocol.completions import COMPLETION_FIELDS, parse_completion
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.protocol.outputs import completion, output


def refusal(**fields: object) -> tuple[str, str | None]:
    with pytest.raises(BodyError) as caught:
        parse_completion({"prompt": "p", **fields})
    return str(caught.value), caught.value.param


def params(**fields: object) -> SamplingParams:
    return parse_completion({"prompt": "p", "max_tokens": 1, **fields}).params


def test_a_field_nobody_knows_is_named_with_its_nearest() -> None:
    complaint = "unknown field 'temprature'; did you mean temperature?"
    assert refusal(temprature=1) == (complaint, "temprature")
    far = "unknown field 'xyzzy': this route has none of that name, leave it out"
    assert refusal(xyzzy=1) == (far, "xyzzy")


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """JSON has one kind of number."""
    whole = {"seed": 7, "stop_token_ids": [3, 4], "top_k": -1, "best_of": 2}
    written = {"seed": 7.0, "stop_token_ids": [3.0, 4], "top_k": -1.0, "best_of": 2.0}
    assert params(**written) == params(**whole)
    assert parse_completion({"prompt": [1.0, 2]}).prompts == ((1, 2),)
    assert refusal(seed=7.5)[1] == refusal(seed=1e999)[1] == "seed"


@pytest.mark.parametrize("body", [None, [], "x", 3, True])
def test_a_body_is_an_object(body: int | list[Any] | str | None) -> None:
    with pytest.raises(BodyError, match="the body: expected an object, found "):
        parse_chat(body)


def test_null_is_not_given_and_labels_are_dropped_whatever_they_say() -> None:
    null = dict.fromkeys(("temperature", "tools", "user", "echo", "n", "xyzzy"))
    assert params(**null) == params()
    options = {"include_usage": None, "xyzzy": None}
    assert params(stream=True, stream_options=options) == params(stream=True)
    free = parse_completion({"prompt": "p", "response_format": {"type": "text", "x": None}})
    assert free.grammar is None
    choice = parse_completion({"prompt": "p", "structured_outputs": {"choice": ["a"], "x": None}})
    assert choice.grammar == parse_completion({"prompt": "p", "guided_choice": ["a"]}).grammar
    labels = {
        "user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k",
    }  # fmt: skip
    read = read_body({**labels, "echo": True}, COMPLETION_FIELDS)
    assert read == Body(
        {"prompt_cache_key": "k", "echo": True}, ("user", "metadata", "safety_identifier")
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("tools", []), ("bad_words", []), ("text", {}),
     ("modalities", ["text"]), ("tool_choice", "none"), ("suffix", "")],
)  # fmt: skip
def test_what_asks_for_nothing_passes_all_else_is_refused_by_name(name: str, value: Any) -> None:
    assert params(**{name: value}) == params()
    for other in ("other", 0):  # a zero is not the false that asks for nothing
        assert refusal(**{name: other}) == (f"{name} is not supported: leave it out", name)


def test_ranges_and_kinds_are_those_of_sampling_params_with_the_field_named() -> None:
    hot = "temperature='hot': expected a number from 0 to 100"
    assert refusal(temperature="hot") == (hot, "temperature")
    assert refusal(priority=0.5)[1] == "priority"
    assert refusal(stop=[""])[1] == "stop"
    assert refusal(logit_bias={"a": 1})[1] == "logit_bias"
    assert refusal(n=0) == ("n=0: expected a whole number from 1 to 16", "n")
    assert refusal(echo="yes") == ("echo: expected true or false, found a string", "echo")
    assert refusal(model="") == ("model: expected a name, found an empty string", "model")
    # Values that other APIs define are taken.
    assert params(top_k=-1).top_k == 0
    assert params(seed=-1).seed == 2**64 - 1
    assert params(seed=-(2**63)).seed == 2**63
    assert refusal(seed=-(2**63) - 1)[1] == "seed"
    assert refusal(seed=float(-(2**63)))[1] == "seed"  # as a parser reads the number before it


def test_every_name_that_is_the_same_in_both_is_passed_on() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7, "n": 3,
        "stop": ["a", "b"], "stop_token_ids": [3], "repetition_penalty": 1.1,
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "ignore_eos": True,
        "logit_bias": {"12": -100, "3": 1.5},
    }  # fmt: skip
    assert params(**given) == SamplingParams(max_tokens=1, **given)
    chat = parse_chat({"messages": [{"role": "user", "content": "x"}], **given})
    assert chat.params == SamplingParams(**given)
    options: dict[str, Any] = {"priority": -1, "deadline_ms": 500, "cache_salt": "tenant"}
    assert parse_completion({"prompt": "p", **options}).options == RequestOptions(**options)
    chat = parse_chat({"messages": [{"role": "user", "content": "x"}], **options})
    assert chat.options == RequestOptions(**options, begins_turn=True)


def test_beams_are_as_many_as_n_or_best_of_or_beam_width() -> None:
    beams = {"use_beam_search": True}
    assert (params(**beams, n=4).beam_width, params(**beams, n=4).n) == (4, 4)
    assert (params(**beams, n=2, best_of=6).beam_width, params(**beams, best_of=6).n) == (6, 1)
    assert params(**beams, best_of=6, beam_width=8).beam_width == 8
    wide = params(beam_width=3, length_penalty=0.5, early_stopping=True)
    assert (wide.length_penalty, wide.early_stopping) == (0.5, True)
    assert params(use_beam_search=False, n=4).beam_width is None
    assert refusal(**beams, n=2, top_p=0.5)[1] == "top_p"


def test_the_best_of_several_are_given() -> None:
    for fields in ({"best_of": 1}, {"best_of": 2, "n": 2}):
        assert params(**fields) == params(n=fields["best_of"])
    assert (params(best_of=3).n, params(best_of=3).logprobs) == (3, 0)
    assert refusal(best_of=1, n=2)[0] == "best_of=1: expected a whole number from n=2 to 64"
    assert refusal(best_of=True, n=2)[1] == refusal(best_of=65)[1] == "best_of"
    assert refusal(best_of=3, stream=True)[1] == "best_of"


def test_what_the_cache_gave_to_several_prompts() -> None:
    records = (
        CacheRecord(3, CacheSource.PROCESS, None),
        CacheRecord(0, CacheSource.NONE, CacheReason.DIVERGED, 0, "x", 1.5),
        CacheRecord(4, CacheSource.DISK, CacheReason.WINDOW, None, None, 0.5, 9),
    )
    outputs = [replace(output(), cache=each) for each in records]
    assert cache_of(outputs) == {
        "matched_tokens": 7,
        "source": "process",
        "reason": "diverged",
        "diverged_at": 0,
        "diverged_text": "x",
        "saved_ms": 2.0,
        "known_tokens": None,
        "sliding_context": None,
        "let_go_tokens": None,
    }
    assert cache_of(outputs[::-1])["known_tokens"] == 9
    assert cache_of(outputs[:1])["reason"] is cache_of(outputs[:1])["saved_ms"] is None
    slid = [
        replace(each, cache=replace(each.cache, sliding_context=64, let_go_tokens=n))
        for n, each in enumerate(outputs)
    ]
    assert (cache_of(slid)["sliding_context"], cache_of(slid)["let_go_tokens"]) == (64, 3)


def test_biases_are_by_token_id_and_stops_and_answers_are_bounded() -> None:
    assert params(logit_bias={"7": -100, "12": 1.5}).logit_bias == {7: -100, 12: 1.5}
    assert params(logit_bias={}) == params()
    assert refusal(logit_bias=[1])[1] == refusal(logit_bias={"7": 101})[1] == "logit_bias"
    assert len(params(stop=["x"] * 16).stop) == 16
    assert refusal(stop=["x"] * 17)[0] == "stop: 17 texts: at most 16"
    assert refusal(stop="x" * 257)[0] == "stop: a text of more than 256 characters"
    for beams in ({}, {"beam_width": 32}, {"use_beam_search": True, "best_of": 32}):
        assert refusal(n=17, **beams) == ("n=17: expected a whole number from 1 to 16", "n")
    assert params(use_beam_search=True, best_of=32, n=16).beam_width == 32


def test_streams_and_what_they_end_with() -> None:
    def stream(**fields: object) -> tuple[bool, list[str]]:
        wanted = parse_completion({"prompt": "p", **fields}).stream
        return wanted.wanted, list(wanted.figures([output()]))

    assert stream() == stream(stream=False) == (False, [])
    assert stream(stream=True) == (True, [])
    assert stream(stream=True, stream_options={"include_usage": True}) == (True, ["usage"])
    both = {"include_usage": True, "include_cache": True}
    assert stream(stream=True, stream_options=both) == (True, ["usage", "cache"])
    assert stream(stream=True, stream_options={"include_cache": True}) == (True, ["cache"])
    asked = refusal(stream_options={"include_usage": True})[0]
    assert asked == "stream_options needs stream: true"
    unknown = refusal(stream=True, stream_options={"include_usages": True})
    assert "'include_usages'; did you mean include_usage or" in unknown[0]
    assert unknown[1] == "stream_options.include_usages"
    hidden = {"stream": True, "stream_options": {"include_obfuscation": True}, "prompt": "p"}
    assert parse_completion(hidden).noted == ("stream_options.include_obfuscation",)


@pytest.mark.parametrize(
    ("error", "status", "kind", "param", "code"),
    [(errors.UsageError("m"), 400, "invalid_request_error", None, None),
     (BodyError("m", "n"), 400, "invalid_request_error", "n", None),
     (errors.PromptTooLongError("m"), 400, "invalid_request_error", None,
      "context_length_exceeded"),
     (errors.OutOfMemoryError("m"), 400, "invalid_request_error", None, None),
     (errors.ModelNotFoundError("m"), 404, "invalid_request_error", "model", "model_not_found"),
     (errors.ConstraintError("m"), 400, "invalid_request_error", None, "grammar_failed"),
     (errors.KernelError("m"), 500, "server_error", None, None)],
)  # fmt: skip
def test_errors_in_openais_schema(
    error: Any, status: int, kind: str, param: str | None, code: str | None
) -> None:
    assert status_of(error) == status
    said = "prompt is too long: m" if code == "context_length_exceeded" else "m"
    found = {"message": said, "type": kind, "param": param, "code": code}
    assert error_body(error) == {"error": found}


def test_what_was_broken_off_is_no_answer() -> None:
    good, late = completion("a"), completion("b", reason="deadline")
    assert failure([output(good), output(late)]) is None
    broken = output(good, completion("", reason="error"), error="the step failed")
    assert found(failure([output(good), broken])) == (500, "the step failed")
    held = replace(broken, error_type="ConstraintError")
    assert found(failure([held])) == (400, "the step failed")
    aborted = output(completion("", reason="abort"))
    assert found(failure([aborted])) == (500, "the request ended early: abort")


def found(error: errors.OctavoError | None) -> tuple[int, str]:
    assert error is not None
    return status_of(error), str(error)
