"""/tokenize, /detokenize and /apply-template, in the shapes of vLLM's and llama.cpp's."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag, read_kind, read_text
from octavo.protocol.chat import END_RULES, ENDS, ChatRequest, read_end, read_template_args
from octavo.protocol.chat_messages import read_chat_messages
from octavo.protocol.fields import honoured, table
from octavo.protocol.prompts import as_ids
from octavo.protocol.rules import Switch, check_rules, said
from octavo.protocol.sampling import read_model
from octavo.protocol.tools.asked import read_tools

_MODEL = honoured("model", "The name of the model; without it, the one that is loaded", str)
_CHAT = (
    honoured("messages", "A conversation, as chats have it", list),
    honoured("tools", "Functions that the model is told of", list),
    honoured("chat_template_kwargs", "Variables for the chat template: scalars", dict),
    *ENDS,
)
TOKENIZE_FIELDS = table(
    honoured("prompt", "A text; in its place, `messages`", str),
    honoured(
        "add_special_tokens",
        "Begin a text with BOS where the model has it; default true; of messages the template says",
        bool,
    ),
    honoured("return_token_strs", "Give the text of each token too", bool),
    _MODEL,
    *_CHAT,
)
# Refused is what would change nothing: of a text what only chats have, and of a chat BOS, which is
# its template's to write.
_OF_ONE = (
    Switch(
        (said("prompt"),),
        never=(said("tools"), said("chat_template_kwargs"), *(said(e.name, False) for e in ENDS)),
    ),
    Switch((said("messages"),), never=(said("add_special_tokens", False),)),
)
TOKENIZE_RULES = (*_OF_ONE, *END_RULES)
DETOKENIZE_FIELDS = table(_MODEL, honoured("tokens", "Token ids", list))
TEMPLATE_FIELDS = table(_MODEL, *_CHAT)


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    model: str | None
    prompt: str | None  # None: a chat
    chat: ChatRequest | None
    adds_special: bool
    wants_texts: bool
    noted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    model: str | None
    tokens: tuple[int, ...]
    noted: tuple[str, ...] = ()


def parse_tokenize(body: object) -> TokenizeRequest:
    """Raises BodyError."""
    fields = read_body(body, TOKENIZE_FIELDS).fields
    prompt = read_text(fields, "prompt")
    if (prompt is None) == (fields.get("messages") is None):
        raise BodyError("expected one of prompt and messages", "prompt")
    check_rules(fields, TOKENIZE_RULES)
    return TokenizeRequest(
        read_model(fields),
        prompt,
        None if prompt is not None else _read_chat(fields),
        adds_special=read_kind(fields, "add_special_tokens", bool) is not False,
        wants_texts=read_flag(fields, "return_token_strs"),
    )


def parse_detokenize(body: object) -> DetokenizeRequest:
    """Raises BodyError."""
    fields = read_body(body, DETOKENIZE_FIELDS).fields
    tokens = as_ids(fields.get("tokens"))
    if tokens is None or min(tokens, default=0) < 0:
        raise BodyError("tokens: expected a list of token ids", "tokens")
    return DetokenizeRequest(read_model(fields), tokens)


def parse_template(body: object) -> ChatRequest:
    """Raises BodyError."""
    fields = read_body(body, TEMPLATE_FIELDS).fields
    check_rules(fields, END_RULES)
    return _read_chat(fields)


def _read_chat(fields: Fields) -> ChatRequest:
    messages = read_chat_messages(fields.get("messages"))
    return ChatRequest(
        read_model(fields),
        messages,
        end=read_end(fields, messages),
        tools=read_tools(fields),
        template_args=read_template_args(fields),
    )
