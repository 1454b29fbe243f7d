"""/v1/completions: the answers out, whole or in chunks; with `echo` behind their prompts."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence

from octavo.protocol.common import FINISH_REASONS, Vocabulary, finite, progress_of, usage_of
from octavo.protocol.completions import CompletionRequest
from octavo.protocol.prompts import TextOrIds
from octavo.protocol.streams import Event
from octavo.request import (
    Completion,
    FinishReason,
    Progress,
    RequestOutput,
    StreamChunk,
    TokenLogprobs,
)


class CompletionAnswer:
    """Write the answer of a CompletionRequest; choices count on from prompt to prompt. `created` in
    seconds since 1970."""

    ends_with_done = True

    def __init__(
        self,
        request: CompletionRequest,
        *,
        id: str,
        created: int,
        model: str,
        vocabulary: Vocabulary,
    ) -> None:
        self._request = request
        self._vocabulary = vocabulary
        self._head = {"id": id, "object": "text_completion", "created": created, "model": model}
        self._offsets: dict[int, _Offsets] = {}  # of choices that have begun
        self._ended: set[int] = set()  # choices whose end was told

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        """The response, of one output a prompt, in order, whose `failure` is None."""
        choices: list[dict[str, object]] = []
        for prompt, output in zip(self._request.prompts, outputs, strict=True):
            for completion in _best(self._request, output):
                choice = _choice(self._request, prompt, output, completion, self._vocabulary)
                choices.append({"index": len(choices), **choice})
        return {**self._head, "choices": choices, "usage": usage_of(outputs)}

    def begin(self) -> list[Event]:
        if not self._request.echo:
            return []
        texts = [_text_of(prompt, self._vocabulary) for prompt in self._request.prompts]
        return [self._chunk(self._index(i, a), text) for i, text in enumerate(texts) for a in
                range(self._request.params.n)]  # fmt: skip

    def progress(self, prompt: int, progress: Progress) -> list[Event]:
        return [Event({**self._head, "choices": [], "prompt_progress": progress_of(progress)})]

    def piece(self, prompt: int, chunk: StreamChunk) -> list[Event]:
        index = self._index(prompt, chunk.index)
        events = []
        if chunk.text or chunk.logprobs:
            found = None
            if chunk.logprobs is not None:
                tokens = [(token.token_id, token) for token in chunk.logprobs]
                found = _logprobs(tokens, self._vocabulary, self._places(index, chunk))
            events.append(self._chunk(index, chunk.text, found))
        if chunk.finish_reason is not None:
            events += self._end_of(index, chunk.finish_reason)
        return events

    def end(self, outputs: Sequence[RequestOutput]) -> list[Event]:
        """What no piece has told: the end of answers without one, and the figures if asked."""
        events = []
        for prompt, output in enumerate(outputs):
            for answer, completion in enumerate(output.outputs):
                index = self._index(prompt, answer)
                if index not in self._ended:
                    events += self._end_of(index, completion.finish_reason)
        if figures := self._request.stream.figures(outputs):
            events.append(Event({**self._head, "choices": [], **figures}))
        return events

    def _places(self, index: int, chunk: StreamChunk) -> list[int]:
        offsets = self._offsets.get(index)
        if offsets is None:
            offsets = self._offsets[index] = _Offsets(self._vocabulary)
        ids = [token.token_id for token in chunk.logprobs or ()]
        return offsets.push(ids, chunk.text, is_end=chunk.finish_reason is not None)

    def _index(self, prompt: int, answer: int) -> int:
        return prompt * self._request.params.n + answer

    def _end_of(self, index: int, reason: FinishReason) -> list[Event]:
        if reason not in FINISH_REASONS:  # a failure, which is told as an error
            return []
        self._ended.add(index)
        return [self._chunk(index, "", finish_reason=FINISH_REASONS[reason])]

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: object = None,
        finish_reason: str | None = None,
    ) -> Event:
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return Event({**self._head, "choices": [choice]})


def _choice(
    request: CompletionRequest,
    prompt: TextOrIds,
    output: RequestOutput,
    completion: Completion,
    vocabulary: Vocabulary,
) -> dict[str, object]:
    text = completion.text
    tokens = None if request.hides_logprobs else completion.logprobs
    found: list[tuple[int, TokenLogprobs | None]] = []
    if request.echo:
        text = _text_of(prompt, vocabulary) + text
        found += zip(output.prompt_token_ids, output.prompt_logprobs or (), strict=False)
    found += [(token.token_id, token) for token in tokens or ()]
    places = _Offsets(vocabulary).push([token_id for token_id, _ in found], text, is_end=True)
    return {
        "text": text,
        "logprobs": None if tokens is None else _logprobs(found, vocabulary, places),
        "finish_reason": FINISH_REASONS[completion.finish_reason],
    }


def _text_of(prompt: TextOrIds, vocabulary: Vocabulary) -> str:
    return prompt if isinstance(prompt, str) else vocabulary.decode(prompt)


def _logprobs(
    tokens: Sequence[tuple[int, TokenLogprobs | None]],
    vocabulary: Vocabulary,
    places: Sequence[int],
) -> dict[str, object]:
    """Four lists of one entry a token; the first token of a prompt has no probability. `places`:
    where in the text each begins."""
    return {
        "tokens": [_name(token_id, vocabulary) for token_id, _ in tokens],
        "token_logprobs": [None if token is None else finite(token.logprob) for _, token in tokens],
        "top_logprobs": [None if token is None else _top(token, vocabulary) for _, token in tokens],
        "text_offset": places,
    }


def _top(token: TokenLogprobs, vocabulary: Vocabulary) -> dict[str, float]:
    """The likeliest, and always the token itself. Of tokens with one name the likeliest counts."""
    found: dict[str, float] = {}
    for token_id, logprob in (*token.top, (token.token_id, token.logprob)):
        found.setdefault(_name(token_id, vocabulary), finite(logprob))
    return found


def _name(token_id: int, vocabulary: Vocabulary) -> str:
    r"""The token's text; a part of a character is written as OpenAI does: bytes:\xe2\x80."""
    data = vocabulary.token_bytes(token_id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class _Offsets:
    """Where in the text of one choice each token begins, however its pieces are cut. A control
    token takes no place in it, and what came after a stop string stands at its end."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0
        self._num_shown = 0  # characters

    def push(self, ids: Sequence[int], text: str, *, is_end: bool) -> list[int]:
        """(tokens,) of one more piece of the text; at its end all of it is known."""
        found = []
        for token_id in ids:
            found.append(self._at)
            control = self._vocabulary.is_control(token_id)
            shown = b"" if control else self._vocabulary.token_bytes(token_id)
            if self._at == 0 and shown[:1] == b" " and not text.startswith(" "):
                shown = shown[1:]  # the blank that SPM puts before a text
            self._at += len(self._utf8.decode(shown))
        self._num_shown += len(text)
        return [min(at, self._num_shown) for at in found] if is_end else found


def _best(request: CompletionRequest, output: RequestOutput) -> Sequence[Completion]:
    """The answers that are given: of more that were drawn, those of highest mean log-probability,
    best first."""
    if request.num_given is None:
        return output.outputs
    ranked = sorted(output.outputs, key=_mean_logprob, reverse=True)
    return ranked[: request.num_given]


def _mean_logprob(completion: Completion) -> float:
    logprobs = [token.logprob for token in completion.logprobs or ()]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf
