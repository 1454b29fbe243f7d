"""RequestText: the text of one request as its tokens come, and its output when it has ended.

Comes in: a Request whose branches grow. Goes out: pieces of text that never cut a character and
hold back what may begin a stop string; control tokens are not shown. A stop string that was met is
reported: only the engine ends a branch. Knows no engine and no thread.
"""

from __future__ import annotations

from dataclasses import replace

from octavo.engine.decoding.pooled import embedding
from octavo.engine.nouns import Branch, Request
from octavo.records import CacheRecord
from octavo.request import Completion, Metrics, RequestOutput, StreamChunk, Usage
from octavo.serving.stop_strings import StopStrings
from octavo.tokenizer import Detokenizer, Tokenizer


class RequestText:
    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        self._tokenizer = tokenizer
        self._texts: dict[Branch, _BranchText] = {}

    def catch_up(self) -> list[Branch]:
        """Read the tokens that came since the last call; return the branches that have to end,
        since their text met a stop string."""
        if self.request.params.beam_width and not self.request.finished:
            return []  # beams are answers only at the end
        for branch in self.request.branches:
            text = self._texts.get(branch)
            if text is None:
                text = self._texts[branch] = _BranchText(branch, self._tokenizer)
            text.catch_up()
        if not self.request.params.stop:
            return []
        stopped = [b for b, text in self._texts.items() if text.stopped]
        return [b for b in stopped if b.finish_reason != "stop"]

    def take(self, step: int | None = None) -> list[StreamChunk]:
        """Return what came since the last call, and with that step, a piece for each branch that
        has one; the end of an answer is one too."""
        chunks = [self._texts[b].take(step) for b in self.request.branches if b in self._texts]
        return [c for c in chunks if c.text or c.token_ids or c.finish_reason]

    def output(self, metrics: Metrics) -> RequestOutput:
        """Return the whole of a request that has ended."""
        request = self.request
        assert request.finished
        prompt_logprobs = (
            request.prompt_logprobs if request.params.prompt_logprobs is not None else None
        )
        cached = request.cache.matched_tokens if request.cache else 0
        answers = sorted(request.branches, key=lambda b: b.index)  # beams: equal, best first
        vector = embedding(request)
        completions = [self._completion(b) for b in answers[: request.params.n]]
        return RequestOutput(
            prompt_token_ids=request.prompt_token_ids,
            outputs=tuple(completions),
            usage=Usage(
                request.num_prompt_tokens,
                sum(len(c.token_ids) for c in completions),
                cached_tokens=cached,
            ),
            cache=cache_record(request, self._tokenizer) or CacheRecord(reason=None),
            metrics=metrics,
            seed=request.seed,
            prompt_logprobs=None if prompt_logprobs is None else tuple(prompt_logprobs),
            error=None if request.error is None else str(request.error),
            sampling=None if request.params.beam_width else request.sampling,
            embedding=None if vector is None else tuple(vector.tolist()),
            error_type=None if request.error is None else type(request.error).__name__,
        )

    def _completion(self, branch: Branch) -> Completion:
        assert branch.finish_reason is not None
        wanted = self.request.params.logprobs is not None
        text = self._texts.get(branch)
        return Completion(
            text="" if text is None else text.text,
            token_ids=tuple(branch.completion_token_ids),
            logprobs=tuple(branch.logprobs) if wanted else None,
            finish_reason=branch.finish_reason,
            cumulative_logprob=branch.cumulative_logprob,
            stop=None if text is None else text.stop,
        )


class _BranchText:
    """The text of one branch: detokenised, cut at a stop string."""

    def __init__(self, branch: Branch, tokenizer: Tokenizer) -> None:
        request = branch.request
        self._branch = branch
        self._tokenizer = tokenizer
        # These end a text and are not part of it.
        self._unseen = tokenizer.eos_ids | frozenset(request.params.stop_token_ids)
        self._stops = StopStrings(request.params.stop)
        self._detokenizer = Detokenizer(
            tokenizer,
            continuation=not request.options.begins_turn,
            shown=request.options.shown_tokens,
        )
        self._shown: list[str] = []
        self._num_read = self._num_tokens_taken = request.num_prompt_tokens  # of branch.tokens
        self._num_taken = 0  # of _shown
        self._ended = self._end_taken = False

    @property
    def text(self) -> str:
        return "".join(self._shown)

    @property
    def stopped(self) -> bool:
        return self._stops.found is not None

    @property
    def stop(self) -> str | int | None:
        """What ended it early, of what the request calls its stops."""
        if self._branch.finish_reason != "stop":
            return None
        if self.stopped:
            return self._stops.found
        last = self._branch.tokens[-1]
        return last if last in self._branch.request.params.stop_token_ids else None

    def catch_up(self) -> None:
        tokens, reason = self._branch.tokens, self._branch.finish_reason
        for i in range(self._num_read, len(tokens)):
            last = i == len(tokens) - 1 and reason == "stop"
            if not (last and tokens[i] in self._unseen):
                self._read(tokens[i])
        self._num_read = len(tokens)
        if reason is not None and not self._ended:
            self._ended = True
            if not self.stopped:
                self._show(self._stops.push(self._detokenizer.finish()))
                self._show(self._stops.finish())

    def take(self, step: int | None) -> StreamChunk:
        branch, request = self._branch, self._branch.request
        text = "".join(self._shown[self._num_taken :])
        begin, end = self._num_tokens_taken, self._num_read
        logprobs = None
        if request.params.logprobs is not None:
            num_prompt = request.num_prompt_tokens
            logprobs = tuple(branch.logprobs[begin - num_prompt : end - num_prompt])
        reason = None if self._end_taken else branch.finish_reason
        self._num_taken, self._num_tokens_taken = len(self._shown), end
        self._end_taken = branch.finish_reason is not None
        return StreamChunk(
            text,
            tuple(branch.tokens[begin:end]),
            index=branch.index,
            step=step,
            logprobs=logprobs,
            finish_reason=reason,
        )

    def _read(self, token_id: int) -> None:
        """A control token is not shown, but a stop string may have its name."""
        shown = self._branch.request.options.shown_tokens
        if self._tokenizer.is_control(token_id) and token_id not in shown:
            self._show(self._stops.push_hidden(self._tokenizer.spec.tokens[token_id]))
        self._show(self._stops.push(self._detokenizer.push(token_id)))

    def _show(self, text: str) -> None:
        if text:
            self._shown.append(text)


def cache_record(request: Request, tokenizer: Tokenizer) -> CacheRecord | None:
    """What was found of a prompt, with the text of the token where it parted from all that was
    cached, and what a sliding context has let go so far; None before it has begun."""
    record = request.cache
    if record is not None and record.sliding_context is not None:
        longest = max(branch.num_computed_tokens for branch in request.branches)
        record = replace(record, let_go_tokens=max(0, longest - record.sliding_context))
    if record is None or record.diverged_at is None:
        return record
    token = request.prompt_token_ids[record.diverged_at]
    return replace(record, diverged_text=tokenizer.decode([token], skip_special=False))


def metrics(request: Request) -> Metrics:
    """Times and rates, of a request that has ended."""
    first, last = request.first_token_at, request.last_token_at
    more = sum(b.num_completion_tokens for b in request.branches) - len(request.branches)
    ttft = None if first is None else first - request.added_at
    decode = last - first if more > 0 and first is not None and last is not None else None
    cached = request.cache.matched_tokens if request.cache else 0
    waited = None if request.begun_at is None else request.begun_at - request.added_at
    return Metrics(
        ttft_ms=None if ttft is None else ttft * 1e3,
        tpot_ms=None if decode is None else decode * 1e3 / more,
        prefill_tps=(request.num_prompt_tokens - cached) / ttft if ttft else None,
        decode_tps=more / decode if decode else None,
        kv_bytes=request.peak_bytes,
        queue_ms=None if waited is None else waited * 1e3,
    )
