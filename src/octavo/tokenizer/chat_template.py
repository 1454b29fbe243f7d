"""A model's chat template: Jinja source in, one string out.

The source comes with a downloaded model, so it runs in a sandbox with limits, and whatever it
raises is the user's error, on one line. It is rendered in pieces, so that one who knows what is too
long can end it. Knows no token ids.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

import jinja2
import jinja2.meta

from octavo.errors import UsageError
from octavo.interrupts import is_interrupt
from octavo.tokenizer.template_clock import clock
from octavo.tokenizer.template_meter import Meter, expect
from octavo.tokenizer.template_sandbox import TemplateSandbox

_LONGEST_SOURCE = 1 << 16  # characters; the longest in use have 20 thousand
_LONGEST_COMPLAINT = 300  # characters of an error
_FIRST_LOOK = 1 << 15  # characters after which a rendering is looked at, and then at each doubling


class ChatTemplate:
    """A compiled template; `bos_token` and `eos_token` are texts, "" where there is none.

    `check` is shown what was rendered so far, now and then; what it raises ends the rendering.
    """

    def __init__(
        self,
        source: str,
        bos_token: str,
        eos_token: str,
        *,
        check: Callable[[str], None] | None = None,
    ) -> None:
        self._code = _compiled(source)
        self._globals = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "raise_exception": _raise_exception,
        }
        self._check = check

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The conversation as the model reads it; `kwargs` are the template's variables."""
        names: dict[str, Any] = {"tools": None, "documents": None, "strftime_now": clock()}
        names |= kwargs
        names |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        pieces, size, look = list[str](), 0, _FIRST_LOOK
        for piece in self._pieces(names):
            pieces.append(piece)
            size += len(piece)
            if self._check is not None and size > look:
                look = 2 * size
                self._check("".join(pieces))
        return "".join(pieces)

    def _pieces(self, names: dict[str, Any]) -> Iterator[str]:
        size = 0
        try:
            sandbox = TemplateSandbox(Meter())
            template = jinja2.Template.from_code(
                sandbox, self._code, sandbox.make_globals(self._globals)
            )
            # not template.render, which takes all of it before anybody can count
            for piece in template.root_render_func(template.new_context(names)):
                size += len(piece)
                expect(size)
                yield piece
        except Exception as error:  # a program we did not write: all it raises is input
            if is_interrupt(error):
                raise
            raise UsageError(f"the chat template failed: {_one_line(error)}") from error


@functools.lru_cache(maxsize=8)  # each turn asks, and to parse takes longer than to render
def variables_of(source: str) -> frozenset[str]:
    """Return the names that a template reads and a caller may give. Raises UsageError."""
    _compiled(source)
    return frozenset(jinja2.meta.find_undeclared_variables(TemplateSandbox(Meter()).parse(source)))


@functools.lru_cache(maxsize=8)  # a chat renders the same template turn by turn
def _compiled(source: str) -> CodeType:
    if len(source) > _LONGEST_SOURCE:
        raise UsageError(
            f"the chat template has {len(source):,} characters: at most {_LONGEST_SOURCE:,}"
        )
    try:
        return TemplateSandbox(Meter()).code(source)
    except MemoryError:  # what Python's parser says of blocks in blocks
        raise UsageError("the chat template does not compile: it is nested too deeply") from None
    except Exception as error:
        if is_interrupt(error):
            raise
        raise UsageError(f"the chat template does not compile: {_one_line(error)}") from error


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _one_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or calls itself without end"
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= _LONGEST_COMPLAINT else line[:_LONGEST_COMPLAINT] + "…"
