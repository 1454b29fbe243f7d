"""What the fields of OpenAI's Responses hold."""

from __future__ import annotations

from octavo.protocol.chat import EFFORTS
from octavo.protocol.responses import input, request, tools
from octavo.protocol.tools.asked import MOST_TOOLS
from octavo.server.shapes.words import (
    FLAG,
    MAYBE_TEXT,
    OBJECT,
    SOME_TEXT,
    TEXT,
    Insides,
    Schema,
    closed,
    either,
    given,
    list_of,
    maybe,
    one_of,
    only,
    ref,
)

_CONTENT = either(TEXT, list_of(ref("ResponsesPart")))
_CALLED: dict[str, Schema] = {"call_id": TEXT, "name": TEXT, "namespace": MAYBE_TEXT}


def _item(kind: str, *required: str, **held: Schema) -> Schema:
    names = (*input.OF_EVERY, *input.READERS[kind][1])
    return closed(names, "type", *required, type=only(kind), **held)


def _tool(names: tuple[str, ...], kind: str, *required: str, **held: Schema) -> Schema:
    about: dict[str, Schema] = {"name": ref("ToolName"), "description": MAYBE_TEXT}
    return closed(names, "type", "name", *required, type=only(kind), **about, **held)


_LATER = one_of((False, None))

# What is no item of a provider's own, or of reasoning that nobody here can read.
_SAYING = either(
    {
        "properties": {
            "type": one_of((*(kind for kind in input.READERS if kind != "reasoning"), None))
        }
    },
    given(type=only("reasoning"), content=list_of(OBJECT, 1)),
)

SHAPES: Insides = {
    "ResponsesItem": either(
        closed(
            (*input.OF_EVERY, *input.READERS["message"][1]), "role", "content",
            type=one_of(("message", None)), role=one_of([*input.ROLES]), content=_CONTENT,
        ),
        _item("function_call", "call_id", "name", "arguments", **_CALLED, arguments=TEXT),
        _item("custom_tool_call", "call_id", "name", "input", **_CALLED, input=TEXT),
        _item("function_call_output", "call_id", "output", call_id=TEXT, output=_CONTENT),
        _item("custom_tool_call_output", "call_id", "output", call_id=TEXT, output=_CONTENT),
        _item("reasoning", content=maybe(list_of(ref("ReasoningPart")))),
        ref("HostedTool"),
    ),
    "ResponsesPart": either(
        closed(input.OF_PART, "type", "text", type=one_of(input.TEXTS), text=TEXT),
        closed(("type", "refusal"), "type", "refusal", type=only("refusal"), refusal=TEXT),
    ),
    "ReasoningPart": closed(
        ("type", "text"), "type", "text", type=one_of(("reasoning_text", "text")), text=TEXT
    ),
    "ResponsesFunction": _tool(
        tools.OF_FUNCTION, "function",
        parameters=maybe(ref("ToolParameters")), strict=FLAG, defer_loading=_LATER,
    ),
    "CustomTool": _tool(
        tools.OF_CUSTOM, "custom", format=maybe(ref("CustomFormat")), defer_loading=_LATER
    ),
    "CustomFormat": either(
        closed(("type",), "type", type=only("text")),
        closed(
            tools.OF_GRAMMAR, *tools.OF_GRAMMAR,
            type=only("grammar"), syntax=only("regex"), definition={**ref("Regex"), "minLength": 1},
        ),
        closed(
            tools.OF_GRAMMAR, *tools.OF_GRAMMAR,
            type=only("grammar"), syntax=only("lark"), definition=SOME_TEXT,
        ),
    ),
    "ResponsesTool": either(
        ref("ResponsesFunction"),
        ref("CustomTool"),
        _tool(
            tools.OF_NAMESPACE, "namespace",
            tools=maybe(list_of(either(ref("ResponsesFunction"), ref("CustomTool")))),
        ),
        ref("HostedTool"),
    ),
    "ToolReference": closed(
        ("type", "name", "namespace"), "type", "name",
        type=one_of(("function", "custom")), name=TEXT, namespace=MAYBE_TEXT,
    ),
    "ResponsesToolChoice": either(
        one_of(tools.MODES),
        ref("ToolReference"),
        closed(
            ("type", "mode", "tools"), "type", "mode", "tools",
            type=only("allowed_tools"), mode=one_of(("auto", "required")),
            tools={
                **list_of(either(ref("ToolReference"), ref("HostedTool")), 1),
                "contains": given(type=one_of(("function", "custom"))),
            },
        ),
    ),
}  # fmt: skip

RESPONSES: Insides = {
    "input": either(TEXT, {**list_of(ref("ResponsesItem"), 1), "contains": _SAYING}),
    "tools": maybe(list_of(ref("ResponsesTool"), most=MOST_TOOLS)),
    "tool_choice": maybe(ref("ResponsesToolChoice")),
    "text": maybe(closed(request.OF_TEXT, format=maybe(ref("FormatOfAnswer")))),
    "reasoning": maybe(closed(request.OF_REASONING, effort=one_of((*EFFORTS, None)))),
    "stream_options": maybe(closed(request.OF_STREAM_OPTIONS, include_cache=FLAG)),
    "include": {"items": TEXT},
    "truncation": one_of(("disabled", None)),
}
