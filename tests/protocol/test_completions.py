"""/v1/completions: prompts in, the exact response out, with echo and log-probabilities."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.completion_answer import CompletionAnswer
from octavo.protocol.completions import CompletionRequest, parse_completion
from octavo.request import FinishReason, RequestOutput, StreamChunk
from octavo.sampling_params import SamplingParams
from tests.protocol.outputs import Words, completion, output, token

NAMED: dict[str, Any] = {"id": "cmpl-1", "created": 17, "model": "m", "vocabulary": Words()}


PLAIN = CompletionRequest(None, ("x",))


def respond(request: CompletionRequest, *outputs: RequestOutput, **named: Any) -> dict[str, Any]:
    return CompletionAnswer(request, **{**NAMED, **named}).whole(outputs)


def refusal(**fields: object) -> tuple[str, str | None]:
    with pytest.raises(BodyError) as caught:
        parse_completion({"prompt": "p", **fields})
    return str(caught.value), caught.value.param


def test_a_prompt_is_text_or_ids_and_may_be_several_and_an_answer_has_16_tokens() -> None:
    prompts: list[tuple[Any, Any]] = [
        ("häh", ("häh",)), ("", ("",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ]  # fmt: skip
    for prompt, found in prompts:
        assert parse_completion({"prompt": prompt}).prompts == found
    found = parse_completion({"prompt": "p"})
    assert found == CompletionRequest(None, ("p",), params=SamplingParams(max_tokens=16))
    assert parse_completion({"prompt": "p", "max_tokens": 3}).params.max_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "found"),
    [(None, "null"), ([], "an empty list"), (3, "a whole number"), ({}, "an object"),
     (["a", 1], "a list"), ([[1], "a"], "a list"), ([[]], "a list"), ([True], "a list"),
     ([1.5], "a list")],
)  # fmt: skip
def test_anything_else_is_no_prompt(prompt: Any, found: str) -> None:
    expected = "prompt: expected a string, a list of token ids, or a list of either"
    assert refusal(prompt=prompt) == (f"{expected}, found {found}", "prompt")


def test_echo_with_logprobs_asks_for_those_of_the_prompt() -> None:
    def asked(**fields: object) -> tuple[int | None, int | None]:
        params = parse_completion({"prompt": "p", **fields}).params
        return params.logprobs, params.prompt_logprobs

    assert asked(logprobs=2) == (2, None)
    assert asked(echo=True) == (None, None)
    assert asked(echo=True, logprobs=0) == (0, 0)
    wrong = refusal(echo=True, logprobs=True)
    assert wrong[0] == "logprobs=True: expected a whole number from 0 to 20"


def test_echo_with_logprobs_and_no_tokens_scores_the_prompt() -> None:
    body = {"prompt": "Hi there", "max_tokens": 0, "echo": True, "logprobs": 1}
    alone = parse_completion({"prompt": "Hi there", "max_tokens": 0})
    assert alone.params == SamplingParams(max_tokens=0)
    request = parse_completion(body)
    assert request.params == SamplingParams(max_tokens=0, logprobs=1, prompt_logprobs=1)
    scored = (None, token(1, -0.5, (0, -0.25)))
    answer = completion("", wanted=True, reason="length")
    (choice,) = respond(request, output(answer, prompt=(0, 1), prompt_logprobs=scored))["choices"]
    logprobs = {
        "tokens": ["Hi", " there"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"Hi": -0.25, " there": -0.5}],
        "text_offset": [0, 2],
    }
    assert choice == {
        "index": 0, "text": "Hi there", "finish_reason": "length", "logprobs": logprobs,
    }  # fmt: skip


def test_choices_count_on_from_prompt_to_prompt_and_usage_is_the_sum() -> None:
    request = CompletionRequest(None, ("one", "two"))
    first = output(completion("a"), completion("b"), usage=(3, 2, 1))
    second = output(completion("c", reason="length"), completion("d"), usage=(5, 4, 0))
    assert respond(request, first, second) == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 17,
        "model": "m",
        "choices": [
            {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "text": "b", "logprobs": None, "finish_reason": "stop"},
            {"index": 2, "text": "c", "logprobs": None, "finish_reason": "length"},
            {"index": 3, "text": "d", "logprobs": None, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": 8, "completion_tokens": 6, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip


def test_logprobs_are_four_lists_and_offsets_follow_the_text() -> None:
    tokens = [token(0, -0.5, (1, -0.25), (0, -0.5)), token(2, -1.0), token(3, -2.0, (5, -1.0))]
    tokens += [token(1, -3.0), token(5, -4.0)]
    answer = completion("Hi€ there", *tokens, wanted=True)
    (choice,) = respond(PLAIN, output(answer))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["Hi", "bytes:\\xe2", "bytes:\\x82\\xac", " there", "<end>"],
        "token_logprobs": [-0.5, -1.0, -2.0, -3.0, -4.0],
        "top_logprobs": [
            {" there": -0.25, "Hi": -0.5}, {"bytes:\\xe2": -1.0},
            {"<end>": -1.0, "bytes:\\x82\\xac": -2.0}, {" there": -3.0}, {"<end>": -4.0},
        ],
        "text_offset": [0, 2, 2, 3, 9],
    }  # fmt: skip


def test_tokens_that_the_text_shows_otherwise_have_offsets_too() -> None:
    for text, ids, offsets in [
        ("Hi", [0, 1, 1], [0, 2, 2]),  # what comes after a stop string stands at the end
        ("there", [1, 0], [0, 5]),  # the blank that SPM puts before a text takes no place in it
        (" thereHi", [1, 0], [0, 6]),  # the blank that it begins with does
        ("Hi there", [0, 5, 1], [0, 2, 2]),  # `ignore_eos` went on after the end of a turn
    ]:
        answer = completion(text, *(token(i, -1.0) for i in ids), wanted=True)
        (choice,) = respond(PLAIN, output(answer))["choices"]
        assert choice["logprobs"]["text_offset"] == offsets


def test_offsets_are_the_same_however_a_stream_is_cut() -> None:
    tokens = [token(i, -1.0) for i in (0, 2, 1, 2, 3, 0, 1)]
    text = "Hi\ufffd there€"  # a stop string hid the rest
    (choice,) = respond(PLAIN, output(completion(text, *tokens, wanted=True)))["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 2, 2, 9, 9, 10, 10]
    cuts = [("Hi", 1), ("", 1), ("\ufffd there", 1), ("", 1), ("", 1), ("€", 2)]
    writer = CompletionAnswer(PLAIN, id="c", created=17, model="m", vocabulary=Words())
    offsets: list[int] = []
    for i, (piece, count) in enumerate(cuts):
        told, tokens = tuple(tokens[:count]), tokens[count:]
        reason: FinishReason | None = "stop" if i == len(cuts) - 1 else None
        chunk = StreamChunk(piece, (), logprobs=told, finish_reason=reason)
        event: Any = writer.piece(0, chunk)[0].data
        offsets += event["choices"][0]["logprobs"]["text_offset"]
    assert offsets == choice["logprobs"]["text_offset"]


def test_of_tokens_with_one_name_the_likeliest_counts() -> None:
    class Twins(Words):
        PIECES = (b"Hi", b"Hi", b"<end>")

    answer = completion("Hi", token(1, -2.0, (0, -0.5)), wanted=True)
    (choice,) = respond(PLAIN, output(answer), vocabulary=Twins())["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"Hi": -0.5}]


def test_echo_puts_the_prompt_first_and_its_first_token_has_no_probability() -> None:
    request = CompletionRequest(None, ("Hi there",), echo=True)
    answer = completion(" ", token(4, -1.0), wanted=True)
    seen = output(answer, prompt_logprobs=(None, token(1, -0.5, (0, -0.1))))
    (choice,) = respond(request, seen)["choices"]
    assert choice == {
        "index": 0,
        "text": "Hi there ",
        "logprobs": {
            "tokens": ["Hi", " there", " "],
            "token_logprobs": [None, -0.5, -1.0],
            "top_logprobs": [None, {"Hi": -0.1, " there": -0.5}, {" ": -1.0}],
            "text_offset": [0, 2, 8],
        },
        "finish_reason": "stop",
    }
    # Token ids are decoded.
    request = CompletionRequest(None, ((0, 2, 3),), echo=True)
    (choice,) = respond(request, output(completion("!")))["choices"]
    assert (choice["text"], choice["logprobs"]) == ("Hi€!", None)
