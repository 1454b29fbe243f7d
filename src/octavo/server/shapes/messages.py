"""What the fields of Anthropic's Messages hold."""

from __future__ import annotations

from octavo.protocol.messages import blocks, request, tools
from octavo.protocol.sampling import LONGEST_STOP, MOST_STOPS
from octavo.protocol.tools.asked import MOST_TOOLS
from octavo.server.shapes.words import (
    FLAG,
    MAYBE_TEXT,
    NULL,
    SOME_TEXT,
    TEXT,
    Insides,
    Schema,
    closed,
    either,
    list_of,
    maybe,
    one_of,
    only,
    ref,
)

# Of a block by its type: what must be there, and what is held.
_MUST = {
    "text": ("text",),
    "thinking": ("thinking",),
    "redacted_thinking": (),
    "tool_use": ("id", "name"),
    "tool_result": ("tool_use_id",),
}
_HELD: Insides = {
    **{name: TEXT for names in _MUST.values() for name in names},
    **{name: one_of((None, nothing)) for name, nothing in blocks.NOTHING.items()},
    "cache_control": maybe(ref("CacheControl")),
    "input": {"type": ["object", "null"]},
    "is_error": FLAG,
    "content": either(TEXT, list_of(ref("TextBlock")), NULL),
}
_NAMES = {
    "text": "TextBlock",
    "thinking": "ThinkingBlock",
    "redacted_thinking": "RedactedThinkingBlock",
    "tool_use": "ToolUseBlock",
    "tool_result": "ToolResultBlock",
}
_IN_ORDER = (
    "The conversation so far, of user, assistant and system. Where the last is the assistant's, "
    "the answer goes on with its text: it has one, which ends with no white space, and no calls of "
    "tools, whose results come before an answer."
)
_DISPLAY = one_of((*request.DISPLAYS, None))


def _block(kind: str) -> Schema:
    names = ("type", *blocks.OF_BLOCK[kind])
    held = {name: shape for name, shape in _HELD.items() if name in names}
    return closed(names, "type", *_MUST[kind], type=only(kind), **held)


def _message(role: str) -> Schema:
    shapes = [ref(_NAMES[kind]) for kind in blocks.ROLES[role]]
    content = either(TEXT, list_of(either(*shapes), 1))
    return closed(("role", "content"), "role", "content", role=only(role), content=content)


SHAPES: Insides = {
    "Message": either(*map(_message, blocks.ROLES)),
    **{name: _block(kind) for kind, name in _NAMES.items()},
    "CacheControl": {
        "description": f"Pins the prompt up to it. A body has at most {blocks.MOST_MARKS}.",
        **closed(
            blocks.OF_MARK, "type",
            type=only("ephemeral"), ttl=one_of((*blocks.SECONDS, None)), scope=MAYBE_TEXT,
        ),
    },
    "MessagesTool": {"description": "No two of a body have one name."} | either(
        closed(
            (*tools.OF_TOOL, *tools.NOTHING), "name", "input_schema",
            type=one_of(("custom", None)),
            name=ref("ToolName"), description=MAYBE_TEXT, strict=FLAG,
            input_schema=ref("ToolParameters"), cache_control=maybe(ref("CacheControl")),
            **{name: one_of((*values, None)) for name, values in tools.NOTHING.items()},
        ),
        ref("HostedTool"),
    ),
    "MessagesToolChoice": either(
        closed(
            ("type", "disable_parallel_tool_use"), "type",
            type=one_of([each for each in tools.CHOICES if each != "tool"]),
            disable_parallel_tool_use=FLAG,
        ),
        closed(
            ("type", "disable_parallel_tool_use", "name"), "type", "name",
            type=only("tool"), disable_parallel_tool_use=FLAG, name=TEXT,
        ),
    ),
    "Thinking": either(
        closed(
            request.THINKING["enabled"], "type",
            type=only("enabled"), budget_tokens={"type": ["integer", "null"]}, display=_DISPLAY,
        ),
        closed(request.THINKING["adaptive"], "type", type=only("adaptive"), display=_DISPLAY),
        closed(request.THINKING["disabled"], "type", type=only("disabled")),
    ),
    "OutputConfig": closed(
        request.OF_OUTPUT_CONFIG,
        effort=one_of((*request.EFFORTS, None)), format=maybe(ref("FormatOfAnswer")),
    ),
}  # fmt: skip

MESSAGES: Insides = {
    "messages": {**list_of(ref("Message"), 1), "description": _IN_ORDER},
    "system": either(TEXT, list_of(ref("TextBlock")), NULL),
    "tools": maybe(list_of(ref("MessagesTool"), most=MOST_TOOLS)),
    "tool_choice": maybe(ref("MessagesToolChoice")),
    "thinking": maybe(ref("Thinking")),
    "output_config": maybe(ref("OutputConfig")),
    "cache_control": maybe(ref("CacheControl")),
    "stop_sequences": maybe(list_of({**SOME_TEXT, "maxLength": LONGEST_STOP}, most=MOST_STOPS)),
}
