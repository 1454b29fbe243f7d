"""What the fields of OpenAI's chat and completions hold, and of the routes that share them."""

from __future__ import annotations

from octavo.protocol import chat, chat_messages, structured
from octavo.protocol.embeddings import FORMATS as ENCODINGS
from octavo.protocol.sampling import OF_STREAM_OPTIONS
from octavo.protocol.tools import asked
from octavo.server.shapes.shared import STRUCTURED
from octavo.server.shapes.words import (
    FLAG,
    MAYBE_TEXT,
    NULL,
    OBJECT,
    SOME,
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

_OF_EVERY = chat_messages.OF_EVERY
_OF_ANSWER = (*_OF_EVERY, *chat_messages.OF_ROLE["assistant"], *chat_messages.OF_ANSWER)
_OF_RESULT = (*_OF_EVERY, *chat_messages.OF_ROLE["tool"])
_TOLD = [role for role in chat_messages.ROLES if role not in chat_messages.OF_ROLE]
_ONE_PROMPT = (SOME_TEXT, list_of(ref("TokenId"), 1))
_NAMED = closed(("name",), "name", name=TEXT)


def _parts(*shapes: str) -> Schema:
    return either(TEXT, list_of(either(*map(ref, shapes)), 1))


SHAPES: Insides = {
    "ChatMessage": either(ref("ChatTold"), ref("ChatAnswer"), ref("ChatToolResult")),
    "ChatTold": closed(
        _OF_EVERY, "role", "content",
        role=one_of(_TOLD), content=_parts("ChatText"), name=MAYBE_TEXT,
    ),
    "ChatAnswer": {
        **closed(
            _OF_ANSWER, "role",
            role=only("assistant"), content=maybe(_parts("ChatText", "ChatRefusal")),
            name=MAYBE_TEXT, reasoning_content=MAYBE_TEXT, refusal=MAYBE_TEXT,
            tool_calls=maybe(list_of(ref("ChatCall"))), annotations=maybe(list_of(SOME, most=0)),
        ),
        "anyOf": [
            {**given(content=SOME), "not": given(refusal=SOME)},
            {**given(tool_calls=list_of(OBJECT, 1)), "not": given(content=SOME)},
            {**given(refusal=TEXT), "not": given(content=SOME)},
        ],
    },
    "ChatToolResult": closed(
        _OF_RESULT, "role", "content", "tool_call_id",
        role=only("tool"), content=_parts("ChatText"), name=MAYBE_TEXT, tool_call_id=TEXT,
    ),
    "ChatText": closed(chat_messages.OF_PART, "type", "text", type=only("text"), text=TEXT),
    "ChatRefusal": {
        **closed(("type", "refusal"), "type", "refusal", type=only("refusal"), refusal=TEXT),
        "additionalProperties": False,
    },
    "ChatCall": closed(
        chat_messages.OF_CALL, "id", "function",
        id=TEXT, type=one_of(("function", None)),
        function=closed(
            (*chat_messages.OF_FUNCTION, "parsed_arguments"), "name",
            name=TEXT, arguments={"type": ["string", "object", "null"]},
        ),
    ),
    "ChatTool": either(
        closed(
            asked.OF_TOOL, "type", "function",
            type=only("function"),
            function=closed(
                asked.OF_FUNCTION, "name",
                name=ref("ToolName"), description=MAYBE_TEXT, strict=FLAG,
                parameters=maybe(ref("ToolParameters")),
            ),
        ),
        ref("HostedTool"),
    ),
    "ChatToolChoice": either(
        one_of(asked.CHOICES),
        closed(
            asked.OF_TOOL, "type", "function", type=only("function"), function=_NAMED
        ),
        closed(
            ("type", "allowed_tools"), "type", "allowed_tools",
            type=only("allowed_tools"),
            allowed_tools=closed(
                ("mode", "tools"), "mode", "tools",
                mode=one_of(("auto", "required")),
                tools=list_of({**OBJECT, **given(function=_NAMED)}, 1),
            ),
        ),
    ),
    "ResponseFormat": either(
        closed(("type",), "type", type=one_of(("text", "json_object"))),
        closed(
            ("type", "json_schema"), "type", "json_schema",
            type=only("json_schema"),
            json_schema=closed(
                structured.OF_SCHEMA, "schema",
                name=MAYBE_TEXT, description=MAYBE_TEXT, schema=OBJECT, strict=FLAG,
            ),
        ),
    ),
}  # fmt: skip

CONVERSATION: Insides = {
    "messages": list_of(ref("ChatMessage"), 1),
    "tools": maybe(list_of(ref("ChatTool"), most=asked.MOST_TOOLS)),
}
CHAT: Insides = {
    **CONVERSATION,
    "tool_choice": maybe(ref("ChatToolChoice")),
    "reasoning_effort": one_of((*chat.EFFORTS, None)),
    "stream_options": maybe(closed(OF_STREAM_OPTIONS, **dict.fromkeys(OF_STREAM_OPTIONS, FLAG))),
    "response_format": maybe(ref("ResponseFormat")),
    **STRUCTURED,
}
COMPLETIONS: Insides = {
    "prompt": maybe(ref("Prompt")),
    "stream_options": CHAT["stream_options"],
    "response_format": CHAT["response_format"],
    **STRUCTURED,
}
SESSIONS: Insides = {
    **CONVERSATION,
    "messages": maybe(CONVERSATION["messages"]),
    "prompt": either(*_ONE_PROMPT, *(list_of(each, 1, 1) for each in _ONE_PROMPT), NULL),
}
EMBEDDINGS: Insides = {
    "input": maybe(ref("Prompt")),
    "encoding_format": one_of((*ENCODINGS, None)),
    "dimensions": maybe(ref("EmbeddingSize")),
}
TOKENIZE: Insides = {**CONVERSATION, "messages": SESSIONS["messages"]}
TOKENS: Insides = {"tokens": list_of(ref("TokenId"))}
