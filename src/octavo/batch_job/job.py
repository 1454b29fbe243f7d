"""The run: requests go to the model a window at a time, each result to the journal, all to OUT.

OUT is written once, at the end, in the order of the input. The id of each result line is made from
the request and from what answered it, so a finished OUT can be told from any other file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.atomic_file import write_durably
from octavo.batch_job.answers import Asked, answer
from octavo.batch_job.journal import Journal, Origin
from octavo.batch_job.source import Source
from octavo.errors import OctavoError, UsageError
from octavo.protocol.batch import answered, failed
from octavo.protocol.chat import ChatRequest
from octavo.protocol.chat_answer import ChatAnswer
from octavo.protocol.completion_answer import CompletionAnswer
from octavo.request import RequestOutput

if TYPE_CHECKING:
    from octavo.serving.llm import LLM

# Lines handed over at once: what is in memory of a file of any length. The last requests of a
# window run in ever smaller batches, so it is several times what runs at a time.
WINDOW = 512


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request that is done; `error` says why it has no answer."""

    number: int  # of its line
    custom_id: str
    error: str | None


@dataclass(slots=True)
class Summary:
    """Counts of the whole output, whichever run made each line."""

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
        self._refused: dict[int, OctavoError] = {}  # told in OUT; the next run tries them again
        holds_something = output.exists() and output.stat().st_size > 0
        self.finished = self._read_finished() if holds_something else None
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
            asked = [Asked(i, self.source.read(i)) for i in window]
            for one, outcome in answer(llm, asked, template):
                error = None
                if isinstance(outcome, OctavoError):
                    self._refused[one.index], error = outcome, str(outcome)
                else:
                    result = self._result(llm, one, outcome)
                    self.journal.add(self.source.keys[one.index], result)
                report(Outcome(self.source.number(one.index), one.entry.custom_id, error))

    def finish(self) -> Summary:
        """Write the output, whole or not at all, and drop the journal."""
        summary = Summary()
        with write_durably(self.output) as file:
            for index in range(len(self.source)):
                result = self._result_of(index)
                summary.add(result)
                file.write(json.dumps(result).encode() + b"\n")
        self.journal.remove()
        return summary

    def _is_done(self, index: int) -> bool:
        return index in self.source.faults or self.source.keys[index] in self.journal

    def _line_id(self, index: int) -> str:
        return hashlib.sha256(self._origin + self.source.keys[index]).hexdigest()[:32]

    def _result_of(self, index: int) -> dict[str, Any]:
        line_id, number = self._line_id(index), self.source.number(index)
        if index in self.source.faults:
            fault = self.source.faults[index]
            return failed(line_id, fault.custom_id, fault.error, line=number)
        if index in self._refused:
            custom_id = self.source.read(index).custom_id
            return failed(line_id, custom_id, self._refused[index], line=number)
        return self.journal.result(self.source.keys[index])

    def _result(self, llm: LLM, one: Asked, outcome: list[RequestOutput]) -> dict[str, object]:
        line_id, request = self._line_id(one.index), one.entry.request
        shared: dict[str, Any] = {
            "created": int(time.time()), "model": self._model, "vocabulary": llm.tokenizer,
        }  # fmt: skip
        if isinstance(request, ChatRequest):
            writer = ChatAnswer(
                request, id=f"chatcmpl-{line_id}", new_reader=one.new_reader, **shared
            )
            body = writer.whole(outcome)
        else:
            body = CompletionAnswer(request, id=f"cmpl-{line_id}", **shared).whole(outcome)
        return answered(line_id, one.entry.custom_id, body)

    def _read_finished(self) -> Summary:
        """Return what an output that is there already says, if it is this job's."""
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
                f"{self.output} is there and is not the result of this batch: move it away, choose "
                "another output, or give the flags that it was made with"
            ) from None
        return summary


def _check_folder(source: Path, output: Path) -> None:
    """Refuse before hours of work what could not be written after them."""
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output.absolute().parent} is no folder: make it, or choose another")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no plain file: the results need one")
    if output.exists() and output.samefile(source):
        raise UsageError(f"{output} is the input: choose another output")
