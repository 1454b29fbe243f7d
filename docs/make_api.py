"""docs/api.md, made of the tables that the server reads bodies by: `make docs/api.md`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from octavo.options import Option
from octavo.protocol.fields import Field, Table
from octavo.server.described import (
    DESCRIBED,
    ELSEWHERE,
    EVERYWHERE,
    HEADERS,
    TOOL_FORMATS,
    Described,
)
from octavo.server.openapi import path_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
CLIENTS = {
    "curl.sh": "curl",
    "openai_client.py": "The `openai` package",
    "anthropic_client.py": "The `anthropic` package",
    "langchain_client.py": "LangChain",
    "lm_eval.sh": "lm-eval",
    "codex.toml": "Codex",
    "claude_code.sh": "Claude Code",
}

_BEGIN = """\
# The server's API

Made of the server's own tables by `make docs/api.md`; `GET /openapi.json` says the same to
programs.

A field of a body is *honoured*: it does what the API says; *noted*: it changes no answer, and the
header `x-octavo-ignored` names it (`--strict` refuses it); or *refused*: status 400 with its name,
as for any field that stands nowhere here. `null` is the same as leaving a field out. A body is
`application/json`. Where the server has keys, each route but those marked *open* wants one, as
`Authorization: Bearer KEY` or `x-api-key: KEY`.
"""
_KINDS: Mapping[type, str] = {
    **{str: "text", bool: "true, false", int: "whole number", float: "number"},
    **{list: "list", dict: "object"},
}


def page() -> str:
    parts = [_BEGIN, _list_of_routes(), _errors(), _headers(), _tools(), _examples()]
    return "\n".join([*parts, *(_route(*key, row) for key, row in DESCRIBED.items() if row.table)])


def _list_of_routes() -> str:
    rows = [
        (f"`{method} {path_of(path)}`", f"{row.summary}{' (*open*)' if row.is_public else ''}",
         _cell(row.gives))
        for (method, path), row in DESCRIBED.items()
    ]  # fmt: skip
    queries = [
        (f"`{method} {path_of(path)}`", f"`{name}`", says)
        for (method, path), row in DESCRIBED.items()
        for name, says in row.query
    ]
    return "\n".join(
        [
            f"## Routes\n\n{_rows(('route', 'what it does', 'what it gives'), rows)}",
            _rows(("route", "in its query", "what it is"), queries),
        ]
    )


def _errors() -> str:
    says = """\
## Errors

`{"error": {"message", "type", "param", "code"}}`, one sentence in `message`; to `/v1/messages`, and
where a request has an `anthropic-version` header, `{"type": "error", "error": {"type", "message"},
"request_id"}`. A stream that has begun tells an error as an event of that shape, and ends without
`[DONE]` or `message_stop`.
"""
    rows = [(str(each), said) for each, said in sorted({**EVERYWHERE, **ELSEWHERE}.items())]
    return f"{says}\n{_rows(('status', 'when'), rows)}"


def _headers() -> str:
    rows = [(f"`{name}`", said) for name, said in HEADERS.items()]
    return f"## Headers of answers\n\n{_rows(('header', 'what it says'), rows)}"


def _tools() -> str:
    says = """\
## Tools

How a model writes calls is told from its chat template, or by `--tool-format`. A template that
knows no tools, as SmolLM2's, and one whose own form is not read here (Qwen3-Coder, GLM, DeepSeek,
Kimi and others; the server says so at its start) is not told of them: the system message is, with
Hermes' form to answer in, or, where a template knows no tools, the one that is asked for.
The header `x-octavo-tools` of an answer names the form, with `-wrapper` behind it there.

Beside tools, a format of the answer (`response_format`, `text.format`, `output_config.format` and
the others) holds what is no call: an answer is calls alone, or keeps it. Where a call is required
it holds nothing.
"""
    channels = """\
Harmony (gpt-oss) has a channel for each part of an answer, with tools or without: `analysis` is
reasoning, `final` is the answer's text, `commentary` is text too, or a call where it is for a
function; a message for anybody else is text, its header with it. With `--reasoning inline`
reasoning stands in the text between `<think>` and `</think>`, which is taken apart where it is sent
back. Of efforts the model knows low, medium and high: minimal is told as low, xhigh and max as
high, and none is noted as a field that changes no answer. What an answer is held to (a format, a
required call, strict tools) holds behind the header of its channel; reasoning before it is free,
and there is one call. In the prompt calls of one answer stand one after the other, each with its
result, and text beside a call joins the reasoning. A template that leaves the reasoning of earlier
answers out, as gpt-oss's own, keeps no session (it is refused), and `previous_response_id` renders
the conversation anew.
"""
    rows = [(f"`{name}`", said) for name, said in TOOL_FORMATS.items()]
    return f"{says}\n{_rows(('--tool-format', 'what a model writes'), rows)}\n{channels}"


def _examples() -> str:
    begin = "## Clients\n\nThese are the files of [examples/clients](../examples/clients), for "
    begin += "`octavo serve smollm2`.\n"
    return "\n".join([begin, *(_example(*each) for each in CLIENTS.items())])


def _example(name: str, title: str) -> str:
    text = (ROOT / "examples" / "clients" / name).read_text()
    kind = {"py": "python"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    return f"### {title}\n\n```{kind}\n{text}```\n"


def _route(method: str, path: str, row: Described) -> str:
    assert row.table is not None
    fields = row.table
    parts = [f"## {method} {path}\n\n{row.summary}.{row.more}\n", _honoured(fields, row)]
    if says := [each for rule in row.rules for each in rule.sentences()]:
        parts.append(f"{' '.join(says)}\n")
    if noted := _of_rule(fields, "noted"):
        parts.append(f"Noted: {_names(noted)}.\n")
    if refused := _of_rule(fields, "refused"):
        parts.append(f"Refused by name: {_names(refused)}.\n")
    return "\n".join(parts)


def _honoured(fields: Table, row: Described) -> str:
    rows = [
        (f"`{each.name}`{' (required)' if each.name in row.required else ''}",
         _cell(_takes(each)), _cell(each.help))
        for each in sorted(
            _of_rule(fields, "honoured"), key=lambda field: field.name not in row.required
        )
    ]  # fmt: skip
    return _rows(("honoured", "takes", "what it does"), rows)


def _of_rule(fields: Table, rule: str) -> list[Field]:
    return [each for each in fields.values() if each.rule == rule]


def _names(fields: Iterable[Field]) -> str:
    return ", ".join(sorted(f"`{each.name}`" for each in fields))


def _takes(field: Field) -> str:
    if field.option is not None:
        return _range(field.option)
    return " or ".join(_KINDS[kind] for kind in field.kinds)


def _range(option: Option) -> str:
    if option.item is str:
        return "text or list"
    if option.choices:
        return ", ".join(str(each) for each in option.choices if each is not None)
    low, high = (None if math.isinf(each) else _number(each) for each in (option.low, option.high))
    if low is None or high is None:
        return _KINDS[option.kind]
    return f"{'above ' if option.above else ''}{low} to {high}"


def _number(value: float) -> str:
    """Large powers of two as such: nobody reads 18446744073709551615."""
    for less, suffix in ((0, ""), (1, " - 1")):
        whole = int(abs(value)) + less
        if whole > 2**20 and whole.bit_count() == 1:
            return f"{'-' if value < 0 else ''}2^{whole.bit_length() - 1}{suffix}"
    return f"{value:,}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
