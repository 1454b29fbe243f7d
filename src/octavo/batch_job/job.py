"""The run: requests go to the model a window at a time, each result to the journal, all to OUT.

OUT is written once, at the end, in the order of the input. The id of each result line is made from
the request and from what answered it, so a finished OUT can be told from any other file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.batch_job.journal import Journal, Origin
from octavo.batch_job.source import Entry, Source
from octavo.errors import OctavoError, OutOfMemoryError, UsageError
from octavo.protocol.batch import answered, failed
from octavo.protocol.chat import ChatRequest, chat_response
from octavo.protocol.completions import completion_response
from octavo.protocol.responses import failure
from octavo.request import RequestOutput

if TYPE_CHECKING:
    from octavo.llm import LLM

# Lines handed over at once: what is in memory of a file of any length. The last requests of a
# window run in ever smaller batches, so it is several times what runs at a time.
WINDOW = 512

Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request that is done; `error` says why it has no answer."""

    number: int  # of its line
    custom_id: str
    error: str | None


@dataclass(slots=True)
class Summary:
    """Of the whole output, whichever run made it."""

    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, result: dict[str, Any]) -> None:
        if result["error"] is not None:
            self.failed += 1
            return
        usage = result["response"]["body"]["usage"]
        self.succeeded += 1
        self.prompt_tokens += usage["prompt_tokens"]
        self.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
        self.completion_tokens += usage["completion_tokens"]


def pick_model(source: Source, model: str | None) -> str | None:
    """`model`, else the one that the lines name; None where there is nothing to run."""
    if model is not None:
        return model
    if len(source.models) > 1:
        (first, at), (second, then), *_ = source.models.items()
        raise UsageError(
            f"{source.path} names {first!r} in line {at} and {second!r} in line {then}, and a run "
            "has one model: split the file, or give --model for all lines"
        )
    if not source.models and len(source) > len(source.faults):
        raise UsageError(f"no line of {source.path} names a model: give --model")
    return next(iter(source.models), None)


class BatchJob:
    """`origin` is what answers depend on beside the request: the model and how it is run."""

    def __init__(self, source: Source, output: Path, *, model: str | None, origin: Origin) -> None:
        """Raises UsageError where `output` is something else, or its journal of other origin."""
        self.source = source
        self.output = output
        self._model = model or ""
        self._origin = json.dumps(dict(origin), sort_keys=True).encode()
        _check_folder(source.path, output)
        self.finished = self._read_finished() if output.exists() else None
        journal = output.with_name(output.name + ".partial")
        self.journal = Journal(journal, origin, source.digest)
        if self.finished is not None:
            self.journal.remove()  # of a run that was killed at its very end

    def __enter__(self) -> BatchJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    @property
    def num_done(self) -> int:
        """Lines with a result, those at fault among them."""
        return sum(self._is_done(index) for index in range(len(self.source)))

    def run(self, llm: LLM, report: Callable[[Outcome], None], *, template: str | None) -> None:
        """Answer what has no result yet. `template` is a chat template in place of the model's."""
        if self.source.first_chat and template is None and llm.tokenizer.spec.chat_template is None:
            raise UsageError(
                f"{self._model} has no chat template, and line {self.source.first_chat} is a chat: "
                "give one with --chat-template"
            )
        waiting = (i for i in range(len(self.source)) if not self._is_done(i))
        while window := list(islice(waiting, WINDOW)):
            asked = [_Asked(i, self.source.read(i)) for i in window]
            for one, outcome in _answer(llm, asked, template):
                result = self._result(llm, one, outcome)
                self.journal.add(self.source.keys[one.index], result)
                error = str(outcome) if isinstance(outcome, OctavoError) else None
                report(Outcome(self.source.number(one.index), one.entry.custom_id, error))

    def finish(self) -> Summary:
        """Write the output, whole or not at all, and drop the journal."""
        summary = Summary()
        temporary = self.output.with_name(f".{self.output.name}.tmp")
        try:
            with temporary.open("wb") as file:
                for index in range(len(self.source)):
                    result = self._result_of(index)
                    summary.add(result)
                    file.write(json.dumps(result).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.output)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(self.output.absolute().parent)
        self.journal.remove()
        return summary

    def _is_done(self, index: int) -> bool:
        return index in self.source.faults or self.source.keys[index] in self.journal

    def _line_id(self, index: int) -> str:
        return hashlib.sha256(self._origin + self.source.keys[index]).hexdigest()[:32]

    def _result_of(self, index: int) -> dict[str, Any]:
        fault = self.source.faults.get(index)
        if fault is None:
            return self.journal.result(self.source.keys[index])
        return failed(self._line_id(index), fault.custom_id, fault.error, line=fault.number)

    def _result(
        self, llm: LLM, one: _Asked, outcome: list[RequestOutput] | OctavoError
    ) -> dict[str, object]:
        line_id, request = self._line_id(one.index), one.entry.request
        if isinstance(outcome, OctavoError):
            number = self.source.number(one.index)
            return failed(line_id, one.entry.custom_id, outcome, line=number)
        shared: dict[str, Any] = {
            "created": int(time.time()), "model": self._model, "vocabulary": llm.tokenizer,
        }  # fmt: skip
        if isinstance(request, ChatRequest):
            body = chat_response(outcome[0], id=f"chatcmpl-{line_id}", **shared)
        else:
            body = completion_response(request, outcome, id=f"cmpl-{line_id}", **shared)
        return answered(line_id, one.entry.custom_id, body)

    def _read_finished(self) -> Summary:
        """What an output that is there already says, if it is this job's."""
        summary, count = Summary(), 0
        try:
            with self.output.open("rb") as lines:
                for count, text in enumerate(lines, start=1):
                    result = json.loads(text)
                    if result["id"] != f"batch_req_{self._line_id(count - 1)}":
                        raise ValueError(text)
                    summary.add(result)
            if count != len(self.source):
                raise ValueError(count)
        except (ValueError, LookupError, TypeError):
            raise UsageError(
                f"{self.output} is there and is not the result of this batch: move it away, or "
                "choose another output"
            ) from None
        return summary


@dataclass(slots=True)
class _Asked:
    """A line on its way: its prompts go to the model one by one."""

    index: int
    entry: Entry
    outputs: dict[int, RequestOutput] = field(default_factory=dict)  # by place of the prompt
    num_prompts: int = 1
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """One of its prompts."""

    of: _Asked
    place: int
    prompt: Prompt


def _answer(
    llm: LLM, asked: Iterable[_Asked], template: str | None
) -> Iterator[tuple[_Asked, list[RequestOutput] | OctavoError]]:
    """Each line once, as it is done."""
    parts: list[_Part] = []
    for one in asked:
        try:
            parts += _parts(llm, one, template)
        except UsageError as error:
            yield one, error
    for part, outcome in _outcomes(llm, parts):
        one = part.of
        if one.failed:
            continue
        if isinstance(outcome, OctavoError):
            one.failed = True
            yield one, outcome
            continue
        one.outputs[part.place] = outcome
        if len(one.outputs) == one.num_prompts:
            yield one, _checked([one.outputs[place] for place in range(one.num_prompts)])


def _parts(llm: LLM, one: _Asked, template: str | None) -> list[_Part]:
    request = one.entry.request
    if isinstance(request, ChatRequest):
        return [_Part(one, 0, llm.encode_chat(request.messages, chat_template=template))]
    one.num_prompts = len(request.prompts)
    return [_Part(one, place, prompt) for place, prompt in enumerate(request.prompts)]


def _outcomes(
    llm: LLM, parts: Sequence[_Part]
) -> Iterator[tuple[_Part, RequestOutput | OctavoError]]:
    """The model refuses all where it refuses one, so the rest is halved until that one is alone."""
    if not parts:
        return
    left = dict(enumerate(parts))
    params = [part.of.entry.request.params for part in parts]
    options = [part.of.entry.request.options for part in parts]
    try:
        for place, output in llm.as_completed([part.prompt for part in parts], params, options):
            yield left.pop(place), output
        return
    except (UsageError, OutOfMemoryError) as error:
        rest, refused = list(left.values()), error
    if len(rest) == 1:
        yield rest[0], refused
        return
    yield from _outcomes(llm, rest[: len(rest) // 2])
    yield from _outcomes(llm, rest[len(rest) // 2 :])


def _checked(outputs: list[RequestOutput]) -> list[RequestOutput] | OctavoError:
    why = failure(outputs)
    return outputs if why is None else OctavoError(why)


def _check_folder(source: Path, output: Path) -> None:
    """Refuse before hours of work what could not be written after them."""
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output.absolute().parent} is no folder: make it, or choose another")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no plain file: the results need one")
    if output.exists() and output.samefile(source):
        raise UsageError(f"{output} is the input: choose another output")


def _sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
