"""What fields hold in the bodies of several APIs: tools, formats of answers, prompts, sampling."""

from __future__ import annotations

from octavo.grammar.spec import MAX_ENUM_VALUES
from octavo.protocol import chat, structured
from octavo.protocol.prompts import MOST_PROMPTS
from octavo.protocol.sampling import LONGEST_KEY, LONGEST_STOP, MOST_STOPS
from octavo.protocol.tools import asked
from octavo.sampling_params import MOST_BIASES
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

_HOSTED = f"^({'|'.join(asked.HOSTED)})|^({'|'.join(asked.HOSTED_WHOLE)})$"
_STOP: Schema = {**SOME_TEXT, "maxLength": LONGEST_STOP}
_CHOICE = list_of(SOME_TEXT, 1, MAX_ENUM_VALUES)
_SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
_ASKED: dict[str, Schema] = {
    **{"json": ref("JsonSchema"), "regex": ref("Regex"), "choice": _CHOICE, "grammar": TEXT},
    "json_object": only(True),
}

SHAPES: Insides = {
    "ToolName": {"type": "string", "pattern": f"^{asked.NAME.pattern}$"},
    "ToolParameters": {
        "description": "A JSON schema of an object.",
        "type": "object",
        "properties": {"type": only("object")},
    },
    "HostedTool": {
        "description": "A tool that only a provider's own machines have: it is noted.",
        "type": "object",
        "properties": {"type": {"type": "string", "pattern": _HOSTED}},
        "required": ["type"],
    },
    "JsonSchema": {
        "description": "A JSON schema, as such or as its text. A keyword that no grammar can keep "
        "is refused by its name.",
        **either(OBJECT, {**TEXT, "contentMediaType": "application/json"}),
    },
    "Regex": {"type": "string", "format": "regex"},
    "FormatOfAnswer": either(
        closed(("type",), "type", type=one_of(("text", "json_object"))),
        closed(
            ("type", *structured.OF_SCHEMA), "type", "schema",
            type=only("json_schema"),
            name=MAYBE_TEXT, description=MAYBE_TEXT, schema=OBJECT, strict=FLAG,
        ),
    ),
    "StructuredOutputs": {
        **closed(
            structured.OF_OUTPUTS,
            **{name: maybe(either(shape, only(False))) for name, shape in _ASKED.items()},
        ),
        "oneOf": [given(**{name: shape}) for name, shape in _ASKED.items()],
    },
    "ModelName": SOME_TEXT,
    "TokenId": {"type": "integer", "minimum": 0},
    "EmbeddingSize": {"type": "integer", "minimum": 1},
    "Prompt": either(
        *(SOME_TEXT, list_of(ref("TokenId"), 1), list_of(SOME_TEXT, 1, MOST_PROMPTS)),
        list_of(list_of(ref("TokenId"), 1), 1, MOST_PROMPTS),
    ),
}  # fmt: skip

# Of whatever body they stand in.
EVERYWHERE: Insides = {
    "chat_template_kwargs": {
        "propertyNames": {"not": one_of(chat.TEMPLATE_OWN)},
        "additionalProperties": _SCALAR,
    },
    "logit_bias": {
        "maxProperties": MOST_BIASES,
        "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    "model": maybe(ref("ModelName")),
    "prompt_cache_key": {"maxLength": LONGEST_KEY},
    "stop": maybe(either(_STOP, list_of(_STOP, most=MOST_STOPS))),
    "stop_token_ids": {"items": ref("TokenId")},
}
# Of those bodies that say what an answer has to be as vLLM's do.
STRUCTURED: Insides = {
    "structured_outputs": maybe(ref("StructuredOutputs")),
    "guided_json": maybe(ref("JsonSchema")),
    "guided_regex": maybe(ref("Regex")),
    "guided_choice": maybe(_CHOICE),
}
