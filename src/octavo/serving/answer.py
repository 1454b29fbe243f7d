"""Answer: the text of one request as its tokens come, and its output when it is done.

Comes in: a Request whose branches grow. Goes out: pieces of text that never cut a character and
hold back what may begin a stop string; control tokens are not shown. Knows no engine: whoever
steps it calls `catch_up`.
"""

from __future__ import annotations

from dataclasses import replace

from octavo.records import CacheRecord
from octavo.request import Branch, Completion, Metrics, Request, RequestOutput, StreamChunk, Usage
from octavo.serving.stop_strings import StopStrings
from octavo.tokenizer import Detokenizer, Tokenizer


class Answer:
    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        self.done = False
        self._tokenizer = tokenizer
        self._texts: dict[Branch, _Text] = {}

    def catch_up(self) -> list[Branch]:
        """Take in the tokens that came since; the live branches whose text met a stop string."""
        if self.request.params.beam_width and not self.request.finished:
            return []  # beams are answers only at the end
        for branch in self.request.branches:
            if branch not in self._texts:
                self._texts[branch] = _Text(branch, self._tokenizer)
            self._texts[branch].catch_up()
        return [s for s, text in self._texts.items() if text.stopped and not s.finish_reason]

    def finish(self) -> None:
        """The request has ended."""
        assert self.request.finished
        self.catch_up()
        self.done = True

    def fail(self, error: Exception) -> None:
        """The request has ended, since its text cannot be told."""
        assert self.request.finished
        self.request.error = error
        self.done = True

    def take(self) -> list[StreamChunk]:
        """What came since the last call, a piece for each answer that has one."""
        chunks = [self._texts[s].take() for s in self.request.branches if s in self._texts]
        return [c for c in chunks if c.text or c.token_ids]

    def output(self, metrics: Metrics) -> RequestOutput:
        request = self.request
        prompt_logprobs = (
            request.prompt_logprobs if request.params.prompt_logprobs is not None else None
        )
        cached = request.cache.matched_tokens if request.cache else 0
        answers = sorted(request.branches, key=lambda s: s.index)  # beams: equal, best first
        completions = [self._completion(s) for s in answers[: request.params.n]]
        return RequestOutput(
            prompt_token_ids=request.prompt_token_ids,
            outputs=tuple(completions),
            usage=Usage(
                request.num_prompt_tokens,
                sum(len(c.token_ids) for c in completions),
                cached_tokens=cached,
            ),
            cache=self._cache_record(),
            metrics=metrics,
            seed=request.seed,
            prompt_logprobs=None if prompt_logprobs is None else tuple(prompt_logprobs),
            error=None if request.error is None else str(request.error),
            sampling=None if request.params.beam_width else request.sampling,
        )

    def _completion(self, branch: Branch) -> Completion:
        assert branch.finish_reason is not None
        wanted = self.request.params.logprobs is not None
        return Completion(
            text=self._texts[branch].text if branch in self._texts else "",
            token_ids=tuple(branch.completion_token_ids),
            logprobs=tuple(branch.logprobs) if wanted else None,
            finish_reason=branch.finish_reason,
            cumulative_logprob=branch.cumulative_logprob,
        )

    def _cache_record(self) -> CacheRecord:
        """With the text of the token where the prompt parted from all that was kept."""
        record = self.request.cache or CacheRecord(reason=None)
        if record.diverged_at is None:
            return record
        token = self.request.prompt_token_ids[record.diverged_at]
        return replace(record, diverged_text=self._tokenizer.decode([token], skip_special=False))


class _Text:
    """The text of one branch: detokenised, cut at a stop string."""

    def __init__(self, branch: Branch, tokenizer: Tokenizer) -> None:
        self._branch = branch
        self._tokenizer = tokenizer
        # These end a text and are not part of it.
        self._unseen = tokenizer.eos_ids | frozenset(branch.request.params.stop_token_ids)
        self._num_taken = 0  # pieces of _shown, and tokens, that `take` gave
        self._num_tokens_taken = 0
        self._begin()

    def _begin(self) -> None:
        """Forget what was taken in; what `take` gave already is not given again."""
        request = self._branch.request
        self._num_seen = 0  # tokens taken in
        self._shown: list[str] = []
        self._stops = StopStrings(request.params.stop)
        self._detokenizer = Detokenizer(
            self._tokenizer, continuation=not request.options.begins_turn
        )
        self._ended = False
        self._is_half = False  # an interrupt broke `catch_up` off

    @property
    def text(self) -> str:
        return "".join(self._shown)

    @property
    def stopped(self) -> bool:
        return self._stops.found is not None

    def catch_up(self) -> None:
        if self._is_half:
            self._begin()
        self._is_half = True
        tokens = self._branch.completion_token_ids
        reason = self._branch.finish_reason
        for i in range(self._num_seen, len(tokens)):
            last = i == len(tokens) - 1 and reason == "stop"
            if not (last and tokens[i] in self._unseen):
                self._take_in(tokens[i])
        self._num_seen = len(tokens)
        if self.stopped and reason is not None:
            self._branch.finish_reason = "stop"  # even if this was the last of max_tokens
        if reason is not None and not self._ended:
            self._ended = True
            if not self.stopped:
                self._show(self._stops.push(self._detokenizer.finish()))
                self._show(self._stops.finish())
        self._is_half = False

    def take(self) -> StreamChunk:
        shown, seen = self._shown, self._num_seen  # read once: another thread's step adds more
        end = len(shown)
        text = "".join(shown[self._num_taken : end])
        tokens = self._branch.completion_token_ids[self._num_tokens_taken : seen]
        self._num_taken = max(self._num_taken, end)
        self._num_tokens_taken = max(self._num_tokens_taken, seen)
        return StreamChunk(text, tuple(tokens), index=self._branch.index)

    def _take_in(self, token_id: int) -> None:
        """A control token is not shown, but a stop string may have its name."""
        if self._tokenizer.is_control(token_id):
            self._show(self._stops.push_hidden(self._tokenizer.spec.tokens[token_id]))
        self._show(self._stops.push(self._detokenizer.push(token_id)))

    def _show(self, text: str) -> None:
        if text:
            self._shown.append(text)
