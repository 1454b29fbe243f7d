"""`octavo chat`: a conversation. Lines in, answers out; commands begin with a slash.

The messages are the state: every turn sends all of them, answers as the ids that were drawn, so
that only what is new is computed. A stopped answer stays in the conversation as far as it came.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

import typer

from octavo.cli.answer import (
    Quiet,
    System,
    Template,
    check_logprobs,
    cut_line,
    figures_line,
    hidden_line,
    read_template,
)
from octavo.cli.figures import pairs
from octavo.cli.flags import CHAT_SAMPLING, ENGINE, AsJson, Model, check_utf8, with_flags
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.cli.stats import Stats, cache_line, kv_line, say_memory, stats_text
from octavo.cli.transcript import Transcript
from octavo.config import find_home
from octavo.errors import OctavoError, PromptTooLongError, UsageError
from octavo.request import RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.llm import LLM

HELP = pairs(
    [
        ("/reset", "forget the conversation, keep the system message"),
        ("/system TEXT", "set the system message and forget the conversation; no TEXT: remove it"),
        ("/stats", "figures of the last answer and of the engine"),
        ("/help", "this list"),
        ("/exit", "end; so does Ctrl-D. Ctrl-C stops an answer"),
    ]
)


def register(app: typer.Typer) -> None:
    app.command("chat")(chat)


@with_flags(sampling=CHAT_SAMPLING, engine=ENGINE)
def chat(
    model: Model,
    *,
    system: System = None,
    chat_template: Template = None,
    quiet: Quiet = False,
    stats: Stats = False,
    json: AsJson = False,
    sampling: SamplingParams,
    engine: dict[str, object],
) -> None:
    """Talk with a model; /help lists the commands."""
    screen = Screen(json, quiet)
    check_logprobs(sampling, json)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a bad line is then one line's error
    template = read_template(chat_template)
    llm = open_llm(model, engine)
    say_memory(screen, llm.info)
    # Refuses a model without a template, or a template that fails, before the first line.
    llm.encode_chat([{"role": "user", "content": "?"}], chat_template=template)
    conversation = Conversation(llm, screen, sampling, template)
    conversation.set_system(system)
    if _at_terminal():
        screen.note(f"{model}: /help lists the commands, Ctrl-D ends")
    with _history():
        while conversation.take_line():
            pass
    found: dict[str, object] = {
        "messages": conversation.messages,
        "turns": [turn.to_dict() for turn in conversation.turns],
    }
    if stats:
        conversation.show_stats()
        found["stats"] = llm.stats()
    screen.result(found)


class Conversation:
    """The messages so far, and what a line does to them."""

    def __init__(
        self, llm: LLM, screen: Screen, sampling: SamplingParams, template: str | None
    ) -> None:
        self.messages: list[dict[str, str]] = []
        self.turns: list[RequestOutput] = []
        self._llm = llm
        self._screen = screen
        self._sampling = sampling
        self._template = template
        self._transcript = Transcript(llm.tokenizer)
        self._system: str | None = None
        self._answering = False

    def set_system(self, text: str | None) -> None:
        self._system = text
        self.reset()

    def reset(self) -> None:
        first = [] if self._system is None else [{"role": "system", "content": self._system}]
        self.messages = first
        self._transcript.clear()

    def take_line(self) -> bool:
        """Read a line and act on it; False when that ends the conversation.

        Errors are said and survived, and so is Ctrl-C, unless it is the second one of an answer.
        """
        self._answering = False
        try:
            line = _read_line()
            if line is None:
                return False
            if line.startswith("/"):
                return self._command(line)
            if line:
                self._answer(check_utf8("the line", line))
        except PromptTooLongError as error:
            self._screen.error(f"{error}; /reset forgets the conversation")
        except OctavoError as error:
            self._screen.error(str(error))
        except KeyboardInterrupt:
            if self._answering:
                raise
            self._screen.note("\n(Ctrl-D or /exit ends)")
        return True

    def _command(self, line: str) -> bool:
        name, _, text = line.partition(" ")
        match name:
            case "/exit":
                return False
            case "/reset":
                self.reset()
            case "/system":
                self.set_system(check_utf8("the line", text.strip()) or None)
            case "/stats":
                self.show_stats()
            case "/help":
                self._screen.note(HELP)
            case _:
                raise UsageError(f"no command {name}; /help lists them")
        return True

    def _answer(self, text: str) -> None:
        messages = [*self.messages, {"role": "user", "content": text}]
        encoded = self._llm.encode_chat(messages, chat_template=self._template)
        ids = self._transcript.prompt(encoded)
        answer, drawn, output = "", list[int](), None
        chunks = self._llm.stream(ids, self._sampling, RequestOptions(begins_turn=True))
        self._answering = True
        with _Interrupt() as interrupt, contextlib.closing(chunks):
            for chunk in chunks:
                answer += chunk.text
                drawn += chunk.token_ids
                output = chunk.output
                self._screen.write(chunk.text)
                if interrupt.pressed:
                    break
        self._screen.say(" [stopped]" if output is None else "")
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        self._transcript.note(encoded, ids, drawn)
        if output is not None:
            self.turns.append(output)
            if hidden := hidden_line(output, self._llm.tokenizer):
                self._screen.note(hidden)
            if cut := cut_line(output, self._llm.info.context):
                self._screen.note(cut)
            self._screen.figures(figures_line(output))

    def show_stats(self) -> None:
        """How the last turn met the cache, and the engine's figures."""
        lines = [cache_line(self.turns[-1])] if self.turns else []
        self._screen.note("\n".join([*lines, kv_line(self._llm.info), stats_text(self._llm)]))


class _Interrupt:
    """Ctrl-C as a question asked between tokens, so that it never lands inside a step.

    While entered, the first one sets `pressed`; a second one is KeyboardInterrupt as ever.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


def _read_line() -> str | None:
    """What the user typed; None at the end of the input."""
    if sys.stdin is None:  # closed by the caller, as in `octavo chat … <&-`
        return None
    prompt = ">>> " if sys.stdin.isatty() else ""
    try:
        return input(prompt).strip()
    except EOFError:
        if prompt:
            Screen(as_json=False).note("")
        return None


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Keep what is typed at a terminal for the next time, under the home folder."""
    folder = find_home()
    if folder is None or not _at_terminal():
        yield
        return
    try:
        import readline  # its import alone changes how input() reads
    except ImportError:  # a Python built without it: typing works, without history
        yield
        return
    path = folder / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(1000)
            readline.write_history_file(path)
