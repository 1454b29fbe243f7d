"""What each route is, for those who read about it: the OpenAPI document and docs/api.md.

A row has what the table of routes and the field tables do not say. Knows no HTTP beyond statuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from octavo.protocol.chat import CHAT_FIELDS, CHAT_RULES, END_RULES
from octavo.protocol.completions import COMPLETION_FIELDS, COMPLETION_RULES
from octavo.protocol.embeddings import EMBEDDING_FIELDS
from octavo.protocol.fields import Table
from octavo.protocol.messages.request import COUNT_FIELDS, MESSAGES_FIELDS
from octavo.protocol.messages.tools import NEEDS_TOOLS as NEEDS_ANTHROPIC_TOOLS
from octavo.protocol.responses.request import COUNT_FIELDS as RESPONSES_COUNT_FIELDS
from octavo.protocol.responses.request import RESPONSES_FIELDS, RESPONSES_RULES
from octavo.protocol.rules import Switch
from octavo.protocol.sessions import FORK_FIELDS, REWIND_FIELDS, SESSION_FIELDS, SESSION_RULES
from octavo.protocol.tokens import (
    DETOKENIZE_FIELDS,
    TEMPLATE_FIELDS,
    TOKENIZE_FIELDS,
    TOKENIZE_RULES,
)
from octavo.protocol.tools.asked import NEEDS_TOOLS
from octavo.server.page import FILES
from octavo.server.shapes.chat import (
    CHAT,
    COMPLETIONS,
    CONVERSATION,
    EMBEDDINGS,
    SESSIONS,
    TOKENIZE,
    TOKENS,
)
from octavo.server.shapes.messages import MESSAGES
from octavo.server.shapes.responses import RESPONSES
from octavo.server.shapes.words import Insides

_OPENAI_MESSAGES = """\
 A message has `role` (system, developer, user, assistant, tool) and `content`: a text, a list of
`{"type": "text", "text": …}`, or null beside `tool_calls`. One of the assistant may have
`tool_calls` and `reasoning_content`, one of a tool has `tool_call_id`. What the server sends it
takes back. Images, audio and files are refused."""
_ANTHROPIC_MESSAGES = """\
 A message has `role` (user, assistant, system) and `content`: a text, or blocks of type text,
thinking, tool_use and tool_result. A block's `cache_control` (ephemeral, `ttl` 5m or 1h, at most 4
of them; a `scope` is noted) pins the prompt up to it. Where the last message is the assistant's,
the answer goes on with its text. Images and documents are refused."""


@dataclass(frozen=True, slots=True)
class Described:
    summary: str  # a sentence without its full stop
    gives: str = "a JSON object"  # nothing: it only refuses
    table: Table | None = None  # of its body; None: it takes none
    required: tuple[str, ...] = ()  # fields without which the body is refused
    one_of: tuple[str, ...] = ()  # fields of which it has just one
    rules: tuple[Switch, ...] = ()  # between its fields
    query: tuple[tuple[str, str], ...] = ()  # names in the query string, and what each is
    statuses: tuple[int, ...] = ()  # beside those of every route
    streams: bool = False  # with `stream: true`
    headers: tuple[str, ...] = ()  # of its answers, beside those of every route
    is_public: bool = False  # it needs no key
    media_type: str = "application/json"
    insides: Insides = field(default_factory=dict)  # what fields hold, beyond their table
    more: str = ""  # sentences on what its fields hold


_ANSWERS = ("x-octavo-cache", "x-octavo-ended-by", "x-octavo-ignored")
_CHATS = (*_ANSWERS, "x-octavo-tools")
_NAMED = (404,)  # another model's name
_GOES_ON = (404, 409)  # and an unknown session, or one that is in use
_SESSION = (
    "{id, object, created_at, expires_at, tokens, messages, pinned_tokens, cached_tokens}: "
    "`messages` is null for a plain prompt"
)
_CACHE = (
    ("cache_salt", "What the caller keeps under this salt of its own"),
    ("prompt_cache_key", "Also `requests`: what it did for the caller's last ones of this label"),
)
_PAGE = (
    ("limit", "With an `anthropic-version` header: most names of a page, 1 to 1000"),
    ("after_id", "With it: begin after this name"),
    ("before_id", "With it: end before this name"),
)

# By method and path, as the table of routes has them and in its order.
DESCRIBED: Mapping[tuple[str, str], Described] = MappingProxyType(
    {
        ("POST", "/v1/chat/completions"): Described(
            "Answer a conversation, as OpenAI's chat API",
            "a chat.completion; with `stream: true` events of chat.completion.chunk, then [DONE]",
            CHAT_FIELDS, ("messages",), statuses=_GOES_ON, streams=True, headers=_CHATS,
            insides=CHAT, rules=CHAT_RULES, more=_OPENAI_MESSAGES,
        ),
        ("POST", "/v1/completions"): Described(
            "Go on with texts, as OpenAI's completions API",
            "a text_completion; with `stream: true` events of the same, then [DONE]",
            COMPLETION_FIELDS, ("prompt",), statuses=_GOES_ON, streams=True, headers=_ANSWERS,
            insides=COMPLETIONS, rules=COMPLETION_RULES,
        ),
        ("POST", "/v1/messages"): Described(
            "Answer a conversation, as Anthropic's Messages API",
            "a message; with `stream: true` events from message_start to message_stop",
            MESSAGES_FIELDS, ("messages", "max_tokens"), statuses=_NAMED, streams=True,
            headers=(*_CHATS, "x-octavo-pinned"), insides=MESSAGES,
            rules=(NEEDS_ANTHROPIC_TOOLS,), more=_ANTHROPIC_MESSAGES,
        ),
        ("POST", "/v1/messages/count_tokens"): Described(
            "Count the tokens of the prompt that the same request would have",
            "{input_tokens}", COUNT_FIELDS, ("messages",), statuses=_NAMED,
            headers=("x-octavo-ignored", "x-octavo-tools"), insides=MESSAGES,
            rules=(NEEDS_ANTHROPIC_TOOLS,),
        ),
        ("POST", "/v1/responses"): Described(
            "Answer a conversation, as OpenAI's Responses API",
            "a response; with `stream: true` events from response.created to response.completed",
            RESPONSES_FIELDS, ("input",), statuses=_GOES_ON, streams=True, headers=_CHATS,
            insides=RESPONSES, rules=RESPONSES_RULES,
        ),
        ("POST", "/v1/responses/input_tokens"): Described(
            "Count the tokens of the prompt that the same request would have",
            "{object, input_tokens}", RESPONSES_COUNT_FIELDS, ("input",), statuses=_NAMED,
            headers=("x-octavo-ignored", "x-octavo-tools"), insides=RESPONSES,
            rules=(NEEDS_TOOLS,),
        ),
        ("GET", "/v1/responses"): Described(
            "Refuse a WebSocket with status 426, so that clients fall back to POST", "",
            statuses=(405, 426),
        ),
        ("GET", "/v1/responses/{id}"): Described(
            "Show an answer that is kept: the caller's last 256", "a response",
            query=(("stream", "true is refused: it is given whole"),), statuses=(404,),
        ),
        ("DELETE", "/v1/responses/{id}"): Described(
            "Forget an answer that is kept", "{id, object, deleted}", statuses=(404,)
        ),
        ("POST", "/v1/responses/{id}/cancel"): Described(
            "End an answer that still streams, with what there is of it", "a response",
            statuses=(404,),
        ),
        ("POST", "/v1/sessions"): Described(
            "Keep a conversation, or a prompt, as token ids; `session` in bodies of chat, "
            "completions and responses goes on from it", _SESSION, SESSION_FIELDS,
            one_of=("messages", "prompt"), statuses=_NAMED, insides=SESSIONS,
            rules=SESSION_RULES,
        ),
        ("GET", "/v1/sessions/{id}"): Described(
            "Show a session", _SESSION, statuses=(404,)
        ),
        ("POST", "/v1/sessions/{id}/fork"): Described(
            "Make copies of a session, which computes nothing", "a list of sessions", FORK_FIELDS,
            statuses=(404, 409),
        ),
        ("POST", "/v1/sessions/{id}/rewind"): Described(
            "Take a session back to where a turn ended, by its number of messages, or to a number "
            "of tokens, from where it is a plain prompt", _SESSION, REWIND_FIELDS,
            one_of=("tokens", "messages"), statuses=(404, 409),
        ),
        ("DELETE", "/v1/sessions/{id}"): Described(
            "Forget a session, and give up its pin", "{id, object, deleted}", statuses=(404, 409)
        ),
        ("POST", "/v1/embeddings"): Described(
            "Give embeddings of texts, of length 1", "a list of embeddings",
            EMBEDDING_FIELDS, ("input",), statuses=_NAMED,
            headers=("x-octavo-cache", "x-octavo-ignored"),
            insides=EMBEDDINGS,
        ),
        ("POST", "/tokenize"): Described(
            "Give the token ids of `prompt` or of `messages`, as vLLM does",
            "{count, max_model_len, tokens, token_strs}", TOKENIZE_FIELDS,
            one_of=("prompt", "messages"), statuses=_NAMED, insides=TOKENIZE,
            rules=TOKENIZE_RULES,
        ),
        ("POST", "/detokenize"): Described(
            "Give the text of token ids, as vLLM does", "{prompt}", DETOKENIZE_FIELDS, ("tokens",),
            statuses=_NAMED, insides=TOKENS,
        ),
        ("GET", "/tokenizer_info"): Described(
            "Say what a client needs that renders prompts itself",
            "the context, the begin and end tokens, the chat template",
        ),
        ("POST", "/apply-template"): Described(
            "Give the prompt that the chat template makes of messages, as llama.cpp does",
            "{prompt}", TEMPLATE_FIELDS, ("messages",), statuses=_NAMED,
            insides=CONVERSATION, rules=END_RULES,
        ),
        ("GET", "/v1/models"): Described(
            "List the model that is loaded, under each of its names",
            "OpenAI's list; with an `anthropic-version` header Anthropic's page", query=_PAGE,
        ),
        ("GET", "/v1/models/{id:path}"): Described("Show the model of that name", statuses=_NAMED),
        ("GET", "/health"): Described(
            "Say that the process lives",
            "{status: ok}; with `warning` where this kv_dtype was measured as not safe, "
            "or is int4 and was not measured",
            is_public=True,
        ),
        ("GET", "/ready"): Described(
            "Say whether requests are taken",
            "{status: ready}; while starting or draining the same with status 503",
            is_public=True,
        ),
        ("GET", "/metrics"): Described(
            "Give counters and histograms for Prometheus", "metrics as text",
            media_type="text/plain",
        ),
        ("GET", "/openapi.json"): Described("Give this description of all routes"),
        ("GET", "/v1/cache"): Described(
            "Show the KV cache: occupancy, waste, and the caller's own pins and shared prefixes",
            "{object, model, counts, waste, pins, prefixes}", query=_CACHE,
        ),
        ("GET", "/v1/cache/requests/{id}"): Described(
            "Say what the cache did for one of the caller's last 1,000 requests, by its id or that "
            "of its answer", statuses=(404,),
        ),
        ("POST", "/v1/cache/clear"): Described(
            "Forget all that no running request holds: with an `admin` key, or where there are no "
            "keys from the server's machine", "{blocks}: how many were forgotten",
        ),
        **{
            ("GET", path): Described(
                file.summary, file.gives, is_public=True, media_type=file.media_type
            )
            for path, file in FILES.items()
        },
    }
)  # fmt: skip

# What any route may answer beside 200: the limits before it, and the server's own state.
EVERYWHERE: Mapping[int, str] = MappingProxyType(
    {
        400: "A field is unknown, not supported or has a wrong value (`param` names it), the body "
        "is no JSON, the request no HTTP, the prompt is longer than the context "
        "(`context_length_exceeded`), or an answer went beyond the limits of its grammar "
        "(`grammar_failed`)",
        401: "The API key is missing or wrong (`invalid_api_key`)",
        403: "Host or Origin is not this server's, or the key may not do this: without `admin` it "
        "clears no cache and, where there are several tenants, gives no `priority` below 0",
        408: "The request did not come whole in time: its head within 10 s, its body within 30 s; "
        "or `deadline_ms` came before embeddings were there",
        413: "The body is longer than `--max-body`",
        415: "The body is not `application/json`, or is packed (`content-encoding`)",
        417: "`Expect` asks for anything but 100-continue",
        429: "Too many requests or tokens wait already; Retry-After says when to come again",
        431: "The request's head is longer than 64 KiB or 100 fields",
        500: "The server failed at this request; its log has more under the request's id",
        503: "The server is starting, draining or has too many connections",
        529: "The same as 503, to Anthropic's clients",
    }
)
# What only some routes answer.
ELSEWHERE: Mapping[int, str] = MappingProxyType(
    {
        404: "There is no such route, model (`model_not_found`), answer, record or session",
        405: "The route does not take that method",
        409: "Another request uses the session (`session_in_use`)",
        426: "There are no WebSockets here",
    }
)
# How calls of tools are written and read, by the names of --tool-format.
TOOL_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "hermes": "`<tool_call>{JSON}</tool_call>`: Hermes, Qwen 2.5 and 3, Granite 4",
        "llama3": '`{"name": …, "parameters": …}` as a whole answer: Llama 3.1 to 3.3',
        "mistral": "`[TOOL_CALLS][{JSON}, …]`: Mistral to 2024",
        "mistral-args": "`[TOOL_CALLS]name[ARGS]{JSON}`: Mistral since 2025",
        "harmony": "A message in a channel, `to=functions.name`, with JSON alone in it: gpt-oss",
    }
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "x-request-id": "The request's id: the client's own, if it is plain (letters, digits and "
        "._:- up to 128), else a new one",
        "x-octavo-cache": "Of a plain answer what the prefix cache gave: matched=TOKENS, "
        "reason=WHY NOT MORE, saved_ms=X. Streams tell it with `stream_options.include_cache`",
        "x-octavo-ended-by": "deadline: a plain answer, or one of several, was cut short by its "
        "`deadline_ms`, which is told as a length. Streams say it (`ended_by`) with "
        "`stream_options.include_cache`, those of /v1/messages beside the last usage",
        "x-octavo-ignored": "Fields and headers that were given and change no answer; `--strict` "
        "refuses them",
        "x-octavo-pinned": "How many tokens of the prompt `cache_control` has pinned; if none, "
        "why. Streams say it beside the last usage (`pinned`)",
        "x-octavo-tools": "Of a chat with tools in what form calls are read (see Tools); "
        "`-wrapper`: the system message tells of them, and not the chat template",
        "Allow": "With 405: the methods that the route takes",
        "Retry-After": "With 429 and 503: after so many seconds it is worth coming again",
    }
)
