"""RequestText: pieces of text while tokens come, and the output when the request has ended."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from octavo.engine.nouns import Branch, Request
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import (
    FinishReason,
    Metrics,
    RequestOptions,
    RequestOutput,
    TokenLogprobs,
)
from octavo.sampling_params import Sampling, SamplingParams
from octavo.serving.request_text import RequestText

END = 256
METRICS = Metrics(None, None, None, None, 0)


class Bytes:
    """A byte is a token; one more ends a text."""

    spec = SimpleNamespace(add_space_prefix=False, tokens=[*map(chr, range(256)), "<end>"])
    eos_ids = frozenset({END})

    def is_control(self, token_id: int) -> bool:
        return token_id == END

    def shown_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        if token_id == END:
            return b"" if skip_special else b"<end>"
        return bytes([token_id])

    def decode(self, ids: Iterable[int], *, skip_special: bool) -> str:
        return b"".join(self.shown_bytes(i, skip_special=skip_special) for i in ids).decode()


def begin(tokens: Iterable[int] = (), **params: object) -> tuple[Request, RequestText]:
    request = Request(
        id=0, params=SamplingParams.parse(params), options=RequestOptions(),
        prompt_token_ids=(112, 113), seed=7, sampling=Sampling(), max_tokens=100,
    )  # fmt: skip
    request.branches[0].tokens += tokens
    return request, RequestText(request, Bytes())  # type: ignore[arg-type]


def pieces(text: RequestText) -> list[tuple[str, tuple[int, ...], int]]:
    return [(c.text, c.token_ids, c.index) for c in text.take()]


def end(request: Request, reason: FinishReason = "length") -> None:
    for branch in request.branches:
        branch.finish_reason = branch.finish_reason or reason
    request.finished = True


def ended(request: Request, answer: RequestText, reason: FinishReason = "length") -> RequestOutput:
    end(request, reason)
    answer.catch_up()
    return answer.output(METRICS)


def test_a_character_is_shown_when_its_last_byte_is_there() -> None:
    request, answer = begin()
    (branch,) = request.branches
    taken = []
    for byte in "aé".encode():
        branch.tokens.append(byte)
        assert answer.catch_up() == []
        taken += pieces(answer)
    assert taken == [("a", (97,), 0), ("", (0xC3,), 0), ("é", (0xA9,), 0)]
    assert pieces(answer) == []  # nothing twice


def test_a_character_that_is_cut_at_the_end_is_shown_as_unreadable() -> None:
    request, answer = begin(b"a\xc3")
    assert ended(request, answer).outputs[0].text == "a\ufffd"


def test_the_blank_in_front_is_no_text_where_the_answer_begins_a_turn() -> None:
    class Prefixed(Bytes):
        spec = SimpleNamespace(add_space_prefix=True, tokens=Bytes.spec.tokens)

    for begins_turn, text in ((True, " a b"), (False, "  a b")):
        request, _ = begin(b"  a b")
        request.options = RequestOptions(begins_turn=begins_turn)
        answer = RequestText(request, Prefixed())  # type: ignore[arg-type]
        assert ended(request, answer).outputs[0].text == text


def test_what_may_begin_a_stop_string_is_held_back_until_it_does_not() -> None:
    request, answer = begin(stop=["xyz"])
    (branch,) = request.branches
    branch.tokens += b"ax"
    answer.catch_up()
    assert pieces(answer) == [("a", (97, 120), 0)]
    branch.tokens += b"y"
    end(request)
    answer.catch_up()
    assert pieces(answer) == [("xy", (121,), 0)]


def test_a_stop_string_cuts_the_text_and_asks_for_the_end_of_that_branch() -> None:
    request, answer = begin(stop=["xy"], n=2)
    request.branches.append(Branch(request, 1, [112, 113]))
    first, second = request.branches
    first.tokens += b"bxyc"
    second.tokens += b"d"
    assert answer.catch_up() == [first]
    first.finish_reason = "stop"
    assert answer.catch_up() == []  # said once
    second.tokens += b"exy"
    end(request)  # its last token was also the last of max_tokens
    assert answer.catch_up() == [second]
    second.finish_reason = "stop"  # which the engine does
    found = answer.output(METRICS).outputs
    assert [(c.text, c.finish_reason) for c in found] == [("b", "stop"), ("de", "stop")]
    assert [c.stop for c in found] == ["xy", "xy"]
    assert found[0].token_ids == tuple(b"bxyc")


@pytest.mark.parametrize(
    ("last", "reason", "text"),
    [(END, "stop", "ab"), (END, "length", "ab"), (98, "stop", "a"), (98, "length", "ab")],
)
def test_a_token_that_ends_a_text_is_no_part_of_it(
    last: int, reason: FinishReason, text: str
) -> None:
    tokens = [97, last] if last == 98 else [97, 98, last]
    request, answer = begin(tokens, stop_token_ids=[98])
    found = ended(request, answer, reason).outputs[0]
    assert (found.text, found.token_ids[-1]) == (text, last)
    # The model's own end is none of the request's.
    assert found.stop == (98 if (last, reason) == (98, "stop") else None)


def test_a_stop_string_at_an_end_token_is_what_ended_the_answer() -> None:
    request, answer = begin(b"ax", stop=["x"], stop_token_ids=[98])
    assert answer.catch_up() == [request.branches[0]]
    assert ended(request, answer, "stop").outputs[0].stop == "x"
    request, answer = begin(b"ab", stop=["x"], stop_token_ids=[98])
    assert ended(request, answer, "abort").outputs[0].stop is None


def test_the_end_of_each_answer_is_told_once_with_its_last_piece() -> None:
    request, answer = begin(n=2)
    request.branches.append(Branch(request, 1, [112, 113]))
    first, second = request.branches
    first.tokens += b"a"
    second.tokens += b"b"
    first.finish_reason = "length"
    answer.catch_up()
    assert [(c.text, c.finish_reason) for c in answer.take()] == [("a", "length"), ("b", None)]
    end(request, "abort")
    answer.catch_up()
    assert [(c.text, c.index, c.finish_reason) for c in answer.take()] == [("", 1, "abort")]
    assert answer.take() == []


def test_pieces_have_the_log_probabilities_of_their_own_tokens() -> None:
    drawn = [TokenLogprobs(97 + i, -0.5 * i, ()) for i in range(3)]
    for logprobs, wanted in ((None, [None, None]), (0, [(drawn[0],), (*drawn[1:],)])):
        request, answer = begin(logprobs=logprobs)
        (branch,) = request.branches
        taken = []
        for tokens in (drawn[:1], drawn[1:]):
            branch.tokens += [each.token_id for each in tokens]
            branch.logprobs += tokens
            answer.catch_up()
            taken += [c.logprobs for c in answer.take()]
        assert taken == wanted


def test_a_stop_string_may_be_or_hold_the_name_of_a_control_token() -> None:
    for stop, text in (("<end>", "a\n"), ("\n<end>b", "a"), ("<end>bx", "a\nbc")):
        request, answer = begin(stop=[stop], ignore_eos=True)
        (branch,) = request.branches
        for token in (*b"a\n", END, *b"bc"):
            branch.tokens.append(token)
            if answer.catch_up():
                break
        reason: FinishReason = "stop" if stop != "<end>bx" else "length"
        found = ended(request, answer, reason).outputs[0]
        assert (found.text, found.finish_reason) == (text, request.branches[0].finish_reason)
        assert len(found.token_ids) == {"<end>": 3, "\n<end>b": 4, "<end>bx": 5}[stop]


def test_a_control_token_is_shown_to_who_asks_for_it() -> None:
    for stop, text in (((), "a<end>b"), (("d>b",), "a<en")):
        request, _ = begin([97, END, 98], stop=stop, ignore_eos=True)
        request.options = RequestOptions(shown_tokens=[END])
        answer = RequestText(request, Bytes())  # type: ignore[arg-type]
        answer.catch_up()
        assert ended(request, answer).outputs[0].text == text
    request, _ = begin([97, END])
    request.options = RequestOptions(shown_tokens=[END])
    answer = RequestText(request, Bytes())  # type: ignore[arg-type]
    assert ended(request, answer, "stop").outputs[0].text == "a"  # it ended the text


def test_answers_are_in_the_order_of_their_index_and_pieces_name_it() -> None:
    request, answer = begin(n=3)
    request.branches += [Branch(request, 2, [112, 113]), Branch(request, 1, [112, 113])]
    for branch, byte in zip(request.branches, b"abc", strict=True):
        branch.tokens.append(byte)
    answer.catch_up()
    assert pieces(answer) == [("a", (97,), 0), ("b", (98,), 2), ("c", (99,), 1)]
    output = ended(request, answer)
    assert [c.text for c in output.outputs] == ["a", "c", "b"]
    assert (output.usage.prompt_tokens, output.usage.completion_tokens) == (2, 3)


def test_beams_have_no_text_before_the_end_and_then_the_best_n() -> None:
    request, answer = begin(b"x", beam_width=3, n=2)
    assert answer.catch_up() == []
    assert pieces(answer) == []
    request.branches = [
        Branch(request, 0, [112, 113, byte], finish_reason="length", cumulative_logprob=-rank)
        for rank, byte in enumerate(b"abc")
    ]
    request.finished = True
    answer.catch_up()
    output = answer.output(METRICS)
    assert [(c.text, c.cumulative_logprob) for c in output.outputs] == [("a", 0), ("b", -1)]
    assert output.usage.completion_tokens == 2  # of those that are given


def test_the_record_has_the_text_of_the_token_where_the_prompt_parted() -> None:
    request, answer = begin()
    request.prompt_token_ids = (112, END)
    request.cache = CacheRecord(1, CacheSource.PROCESS, CacheReason.DIVERGED, 1)
    output = ended(request, answer)
    assert output.cache.diverged_text == "<end>"  # its name, though it is no text
    assert output.usage.cached_tokens == output.cache.matched_tokens == 1


def test_log_probabilities_are_given_where_they_were_asked_for() -> None:
    drawn = TokenLogprobs(97, -0.5, ())
    for params, wanted in (({}, None), ({"logprobs": 0}, (drawn,))):
        request, answer = begin([97], **params)
        request.branches[0].logprobs.append(drawn)
        assert ended(request, answer).outputs[0].logprobs == wanted
    request, answer = begin(prompt_logprobs=0)
    request.row_values.append(drawn)
    assert ended(request, answer).prompt_logprobs == (None, drawn)


def test_what_failed_says_why_and_keeps_what_it_had() -> None:
    request, answer = begin([97])
    request.error = ValueError("the sky fell")
    output = ended(request, answer, "error")
    assert (output.error, output.outputs[0].finish_reason) == ("the sky fell", "error")
    assert output.outputs[0].text == "a"
    assert output.seed == 7
