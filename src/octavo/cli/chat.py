"""`octavo chat`: a conversation. Messages in, answers out; commands begin with a slash.

The messages are the state: every turn sends all of them, answers as the ids that were drawn, so
that only what is new is computed. A stopped answer stays in the conversation as far as it came.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING

from octavo.cli.answer import (
    Quiet,
    System,
    Template,
    check_logprobs,
    cut_line,
    figures_line,
    fill_sampling,
    hidden_line,
    read_template,
    sampling_sources,
)
from octavo.cli.channels import channels_of
from octavo.cli.chat_input import QUOTES, ChatInput
from octavo.cli.command import Group
from octavo.cli.figures import pairs
from octavo.cli.flags import CHAT_SAMPLING, ENGINE, AsJson, Model, with_flags
from octavo.cli.interrupt import Interrupt
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.cli.stats import Stats, cache_line, kv_line, sampling_line, say_memory, stats_text
from octavo.cli.transcript import Transcript
from octavo.errors import OctavoError, PromptTooLongError, UsageError, counted, unknown_option
from octavo.given_text import check_utf8
from octavo.request import RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.serving.llm import LLM

HELP = pairs(
    [
        ("/reset", "forget the conversation, keep the system message"),
        ("/forget N", "forget the N oldest turns; no N: the oldest one"),
        ("/system TEXT", "set the system message and forget the conversation;"),
        ("", "no TEXT: remove it"),
        ("/stats", "figures of the last answer and of the engine"),
        ("/help", "this list"),
        ("/exit", "end; so does Ctrl-D. Ctrl-C stops an answer"),
        (QUOTES, "begins and ends a message of several lines, or one that begins with"),
        ("", "a slash; a pasted text needs none"),
    ]
)
_COMMANDS = ("/reset", "/forget", "/system", "/stats", "/help", "/exit")
_ALONE = ("/reset", "/stats", "/help", "/exit")  # which nothing may follow


def register(app: Group) -> None:
    app.add("chat", chat)


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
    """Talk with a model; /help lists the commands.

    A line is a message. Several lines are one where they are pasted, or stand between \"\"\". What
    was said can be called back with the arrow keys, in later chats too.

    Where no flag says how tokens are drawn, it is as the model's makers recommend, else with
    temperature 0.7 and top-p 0.9; /stats tells what it is.
    """
    screen = Screen(json, quiet)
    check_logprobs(sampling, json)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A file may begin with the mark of some editors; a bad line is one line's error.
        encoding = None if sys.stdin.isatty() else "utf-8-sig"
        sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")
    template = read_template(chat_template)
    llm = open_llm(model, engine)
    say_memory(screen, llm.info)
    # Refuses a model without a template, or a template that fails, before the first line.
    llm.encode_chat([{"role": "user", "content": "?"}], chat_template=template)
    user = ChatInput()
    sources = sampling_sources(sampling, model, llm)
    sampling = fill_sampling(sampling, model, llm)
    conversation = Conversation(llm, user, screen, sampling, template)
    conversation.set_system(system)
    if user.at_terminal:
        screen.note(f"{model}: /help lists the commands, Ctrl-D ends")
    while conversation.take_message():
        pass
    found: dict[str, object] = {
        "messages": conversation.messages,
        "turns": [turn.to_dict() for turn in conversation.turns],
        "sampling_from": sources,
    }
    if stats:
        conversation.show_stats()
        found["stats"] = llm.stats()
    screen.result(found)


class Conversation:
    """The messages so far, and what the user's words do to them."""

    def __init__(
        self,
        llm: LLM,
        user: ChatInput,
        screen: Screen,
        sampling: SamplingParams,
        template: str | None,
    ) -> None:
        self.messages: list[dict[str, str]] = []
        self.turns: list[RequestOutput] = []
        self._llm = llm
        self._user = user
        self._screen = screen
        self._sampling = sampling
        self._template = template
        self._channels = channels_of(template or llm.template_for(tools=False), llm.tokenizer)
        self._transcript = Transcript(llm.tokenizer)
        self._answering = False

    def set_system(self, text: str | None) -> None:
        self.messages = [] if text is None else [{"role": "system", "content": text}]
        self._transcript.clear()

    def take_message(self) -> bool:
        """Read a message and act on it; False when that ends the conversation.

        Errors are said and survived, and so is Ctrl-C, unless it is the second one of an answer.
        """
        self._answering = False
        try:
            message = self._user.next_message()
            if message is None:
                if self._user.at_terminal:
                    self._screen.note("")  # the shell's prompt must not stand behind ours
                return False
            text = check_utf8("the line", message.text)
            if not message.is_block and _is_command(text):
                return self._command(text)
            if text:
                self._say(text)
        except OctavoError as error:
            self._screen.error(str(error))
        except KeyboardInterrupt:
            if self._answering:
                raise
            self._screen.note("\n(Ctrl-D or /exit ends)")
        return True

    def _command(self, line: str) -> bool:
        name, text = [*line.split(maxsplit=1), ""][:2]
        if text and name in _ALONE:
            raise UsageError(f"{name} stands alone: leave out what follows it")
        match name:
            case "/exit":
                return False
            case "/reset":
                self._forget(self._num_turns)
            case "/forget":
                self._forget(_count(text))
            case "/system":
                self.set_system(text or None)
            case "/stats":
                self.show_stats()
            case "/help":
                self._screen.note(HELP)
            case _:
                raise unknown_option("command", name, _COMMANDS)
        return True

    def _say(self, text: str) -> None:
        """Have it answered; where the context is full, first offer to forget what makes room."""
        try:
            self._answer(text)
        except PromptTooLongError as error:
            count = self._turns_in_the_way(text)
            if not count:
                raise  # it is too long without any of them
            if not self._user.at_terminal:
                way_out = f"/forget {count} makes room, /reset forgets all"
                raise PromptTooLongError(f"{error}; {way_out}") from None
            self._answering = False
            context = counted(self._llm.info.context, "token")
            self._screen.note(f"the conversation no longer fits the context of {context}")
            if self._user.agrees(f"forget {counted(count, 'turn')} and go on?"):
                self._forget(count)
                self._answer(text)

    def _turns_in_the_way(self, text: str) -> int:
        """How many of the oldest turns to forget before `text` can be answered, a quarter of the
        context left for the answer if that is possible; 0 where nothing helps."""
        context, most = self._llm.info.context, self._num_turns
        for count in range(1, most + 1):
            messages = [*self._without(count), _user_says(text)]
            with contextlib.suppress(PromptTooLongError):
                tokens = len(self._llm.encode_chat(messages, chat_template=self._template))
                if tokens <= (context if count == most else context * 3 // 4):
                    return count
        return 0

    def _forget(self, count: int) -> None:
        count = min(count, self._num_turns)
        self.messages = self._without(count)
        self._transcript.clear()
        self._screen.note(f"forgot {counted(count, 'turn')}, {self._num_turns} left")

    @property
    def _num_turns(self) -> int:
        """Count what was said and answered; a system message is no turn."""
        return len(self.messages) // 2

    def _without(self, count: int) -> list[dict[str, str]]:
        """The messages but the oldest turns."""
        first = len(self.messages) % 2
        return self.messages[:first] + self.messages[first + 2 * count :]

    def _answer(self, text: str) -> None:
        messages = [*self.messages, _user_says(text)]
        encoded = self._llm.encode_chat(messages, chat_template=self._template)
        ids = self._transcript.prompt(encoded)
        answer, drawn, output = "", list[int](), None
        options = RequestOptions(begins_turn=True, shown_tokens=self._channels.shown_tokens)
        chunks = self._llm.stream(ids, self._sampling, options)
        shown = self._channels.reader()
        self._answering = True
        with Interrupt() as interrupt, contextlib.closing(chunks):
            for chunk in chunks:
                answer += chunk.text
                drawn += chunk.token_ids
                output = chunk.output
                self._screen.write(shown.push(chunk.text))
                if interrupt.pressed:
                    break
        self._screen.write(shown.finish())
        self._screen.say(" [stopped]" if output is None else "")
        self.messages = [*messages, {"role": "assistant", "content": self._channels.said(answer)}]
        self._transcript.note(encoded, ids, drawn)
        if output is not None:
            self.turns.append(output)
            if hidden := hidden_line(output, self._llm.tokenizer, self._channels.shown_tokens):
                self._screen.note(hidden)
            info = self._llm.info
            if cut := cut_line(output, info, self._sampling.max_tokens):
                way_out = "; /forget drops the oldest turns, /reset all of them"
                self._screen.note(cut if info.sliding_context is not None else cut + way_out)
            self._screen.figures(figures_line(output))

    def show_stats(self) -> None:
        """How answers are drawn, how the last turn met the cache, and the engine's figures."""
        lines = [sampling_line(self._sampling.sampling())]
        lines += [cache_line(self.turns[-1])] if self.turns else []
        self._screen.note("\n".join([*lines, kv_line(self._llm.info), stats_text(self._llm)]))


def _is_command(text: str) -> bool:
    """Tell a command from a message. A file in C may begin with a slash too: of pasted texts only
    a system message is a command."""
    return text.startswith("/") and ("\n" not in text or text.split()[0] == "/system")


def _count(text: str) -> int:
    if not text:
        return 1
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"/forget {text}: expected a number of turns")
    return int(text)


def _user_says(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
