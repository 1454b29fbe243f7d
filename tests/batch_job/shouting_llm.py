"""An LLM whose answer is the prompt in capitals, given back last first; it can refuse and break."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import ClassVar, Self

from octavo.errors import PromptTooLongError, UsageError
from octavo.request import Completion, RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams
from tests.cli.fake_llm import STATS
from tests.protocol.outputs import output

CONTEXT = 40


class Bytes:
    """A byte is a token."""

    def __init__(self, chat_template: str | None) -> None:
        self.spec = SimpleNamespace(chat_template=chat_template)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])

    def control_id(self, name: str) -> int | None:
        return None

    def is_control(self, token_id: int) -> bool:
        return False

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


def say_nothing(text: str) -> None: ...


@dataclass
class ShoutingLLM:
    """`calls` has the prompts of each call; `before` runs before each answer, with its prompt;
    `opened` has the models and keywords that it was loaded with."""

    before: Callable[[str], None] = say_nothing
    refuses: str | None = None  # any call with this prompt in it
    breaks: str | None = None  # this prompt ends with an error
    chat_template: str | None = "a template"
    opened: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    given: list[tuple[SamplingParams, RequestOptions]] = field(default_factory=list)

    info: ClassVar = SimpleNamespace(
        kv_blocks=4, block_size=16, block_bytes=1024, context=CONTEXT, sliding_context=None
    )

    def open(self, model: str, engine: Mapping[str, object]) -> Self:
        self.opened.append((model, engine))
        return self

    @property
    def tokenizer(self) -> Bytes:
        return Bytes(self.chat_template)

    def template_for(self, *, tools: bool) -> str | None:
        return self.chat_template

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        ids = list(prompt.encode() if isinstance(prompt, str) else prompt)
        if len(ids) > CONTEXT:
            raise PromptTooLongError(f"the prompt has {len(ids)} tokens, the context {CONTEXT}")
        return ids

    def encode_chat(self, messages: Sequence[dict[str, str]], **_: object) -> list[int]:
        return list("|".join(message["content"] for message in messages).encode())

    def as_completed(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams],
        options: Sequence[RequestOptions],
    ) -> Iterator[tuple[int, RequestOutput]]:
        texts = [bytes(prompt).decode() for prompt in prompts]
        self.calls.append(texts)
        if self.refuses in texts:
            raise UsageError(f"{self.refuses!r} can never fit")
        self.given += zip(params, options, strict=True)
        for index in reversed(range(len(texts))):
            self.before(texts[index])
            yield index, self._output(texts[index], params[index].n)

    def stats(self) -> dict[str, object]:
        return {**STATS, "steps": len(self.calls)}

    def _output(self, text: str, n: int) -> RequestOutput:
        done = Completion(text.upper(), (), None, "stop")
        if text == self.breaks:
            done = replace(done, text="", finish_reason="error")
        usage = (len(text), n, 1)
        return output(*[done] * n, usage=usage, error="the step failed")
