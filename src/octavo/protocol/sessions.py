"""/v1/sessions: the bodies in. A session begins with messages, as a chat's, or with a prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace

from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag
from octavo.protocol.chat import ChatRequest, read_template_args
from octavo.protocol.chat_messages import read_chat_messages
from octavo.protocol.fields import Field, honoured, of_options, table, whole
from octavo.protocol.prompts import TextOrIds, read_prompts
from octavo.protocol.rules import Switch, check_rules, said
from octavo.protocol.sampling import read_model, read_options
from octavo.protocol.tools.asked import read_tools
from octavo.request import RequestOptions
from octavo.values import is_whole

_DEFAULT_TTL = 3600
_LONGEST_TTL = 30 * 24 * 3600
_MOST = 2**31 - 1

SESSION_FIELDS = table(
    honoured("model", "The name of the model; without it, the one that is loaded", str),
    honoured("messages", "The conversation so far", list),
    honoured("prompt", "A text or token ids, in place of messages"),
    honoured("tools", "Functions that the model may call", list),
    honoured("chat_template_kwargs", "Variables for the chat template: scalars", dict),
    whole("ttl_s", "Forget it so many seconds after its last use; default 3,600", 1, _LONGEST_TTL),
    honoured("pin", "Compute it now, and keep it in the cache", bool),
    *of_options(RequestOptions, ("cache_salt",)),
)
SESSION_RULES = (
    Switch(
        (said("prompt"),),
        never=(said("messages"), said("tools"), said("chat_template_kwargs")),
    ),
)
FORK_FIELDS = table(whole("n", "How many; default 1", 1, 16))
REWIND_FIELDS = table(
    whole("tokens", "Keep this many of its tokens", 1, _MOST),
    whole("messages", "Keep this many of its messages", 1, _MOST),
)


@dataclass(frozen=True, slots=True)
class SessionRequest:
    chat: ChatRequest  # what its messages are rendered with
    prompt: TextOrIds | None  # in place of messages
    ttl: int  # seconds
    pin: bool
    noted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForkRequest:
    count: int
    noted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RewindRequest:
    tokens: int | None = None
    messages: int | None = None
    noted: tuple[str, ...] = ()


def parse_session(body: object) -> SessionRequest:
    """Raises BodyError, which names the field."""
    fields = read_body(body, SESSION_FIELDS).fields
    check_rules(fields, SESSION_RULES)
    prompt = None
    if "prompt" in fields:
        prompts = read_prompts(fields["prompt"], "prompt")
        if len(prompts) > 1:
            raise BodyError("prompt: expected one, found a list of them", "prompt")
        (prompt,) = prompts
    chat = ChatRequest(
        model=read_model(fields),
        messages=() if prompt is not None else read_chat_messages(fields.get("messages")),
        tools=read_tools(fields),
        template_args=read_template_args(fields),
        options=replace(read_options(fields), begins_turn=prompt is None),
    )
    ttl = _read_count(fields, SESSION_FIELDS["ttl_s"])
    return SessionRequest(chat, prompt, ttl or _DEFAULT_TTL, read_flag(fields, "pin"))


def parse_fork(body: object) -> ForkRequest:
    """Raises BodyError."""
    return ForkRequest(_read_count(read_body(body, FORK_FIELDS).fields, FORK_FIELDS["n"]) or 1)


def parse_rewind(body: object) -> RewindRequest:
    """Raises BodyError."""
    fields = read_body(body, REWIND_FIELDS).fields
    if len(fields) != 1:
        raise BodyError("expected one of tokens and messages", "tokens")
    tokens = _read_count(fields, REWIND_FIELDS["tokens"])
    return RewindRequest(tokens, _read_count(fields, REWIND_FIELDS["messages"]))


def _read_count(fields: Fields, field: Field) -> int | None:
    value, rule = fields.get(field.name), field.option
    if value is None:
        return None
    assert rule is not None, "it has a range"
    if not is_whole(value) or not rule.low <= value <= rule.high:
        expected = f"a whole number from {rule.low} to {rule.high:,}"
        raise BodyError(f"{field.name}={value!r}: expected {expected}", field.name)
    return value
