"""Service: what all routes share, from the start of the process to its end.

It is up before the model is: until then, and while it drains, routes that need the model are
refused with 503.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from octavo.errors import ModelNotFoundError
from octavo.protocol.common import ApiError
from octavo.protocol.conversation import Conversation
from octavo.server.admission import Admission
from octavo.server.auth import Keys
from octavo.server.beat import Beat
from octavo.server.config import ServerConfig
from octavo.server.history import History
from octavo.server.log import log
from octavo.server.outcome import Outcome
from octavo.server.pins import Pins
from octavo.server.sessions import Sessions
from octavo.server.stored import StoredAnswers
from octavo.server.tally import Tally
from octavo.serving.async_engine import AsyncEngine

State = Literal["starting", "ready", "draining"]
_CONTEXTS_WAITING = 16  # tokens of prompts that may wait, where nothing else is said


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model as it is served."""

    engine: AsyncEngine
    admission: Admission
    names: tuple[str, ...]  # the first is its own
    chat_template: str | None  # in place of its own
    conversation: Conversation
    pins: Pins
    sessions: Sessions

    def check_name(self, model: str | None) -> str:
        """The name that answers carry. Raises ModelNotFoundError for another model's."""
        if model is None:
            return self.names[0]
        if model not in self.names and "*" not in self.names:
            known = ", ".join(self.names)
            raise ModelNotFoundError(
                f"model={model!r}: this server has {known}; --served-model-name adds a name"
            )
        return model


@dataclass(slots=True, eq=False)
class Service:
    config: ServerConfig
    keys: Keys
    state: State = "starting"
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # open requests have to end
    started: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970
    tally: Tally = field(default_factory=Tally)
    beat: Beat = field(default_factory=Beat)
    history: History = field(default_factory=History)
    trace: Callable[[Outcome, str], None] | None = None  # told of requests, with the model's name
    stored: StoredAnswers = field(default_factory=StoredAnswers)
    body_bytes: int = 0  # of bodies that are held
    bytes_by_tenant: Counter[str] = field(default_factory=Counter)  # the same, each tenant's
    _loaded: Loaded | None = None

    def open(self, engine: AsyncEngine, name: str, chat_template: str | None) -> None:
        """The model is there."""
        config = self.config
        context = engine.info.sliding_context or engine.info.context
        most = config.max_waiting_tokens or _CONTEXTS_WAITING * context
        is_shared = self.keys.num_tenants > 1
        admission = Admission(
            config.max_waiting, most, shared=is_shared, seconds=engine.prefill_seconds
        )
        names = tuple(dict.fromkeys((name, *config.served_model_name)))
        conversation = Conversation(
            lambda tools: chat_template or engine.template_for(tools=tools),
            engine.tokenizer.control_id,
            tool_format=config.tool_format,
            inline_reasoning=config.reasoning == "inline",
        )
        part = 0.5 if is_shared else 1.0
        pins = Pins(engine, part=part)
        sessions = Sessions(engine, engine.info.context, part=part)
        self._loaded = Loaded(engine, admission, names, chat_template, conversation, pins, sessions)
        self.state = "ready"

    @property
    def loaded(self) -> Loaded:
        """Raises ApiError with status 503 while there is no model to ask."""
        if self.state != "ready" or self._loaded is None:
            why = "is shutting down" if self.state == "draining" else "is loading its model"
            raise ApiError(503, f"the server {why}: try again later", retry_after=1)
        return self._loaded

    @property
    def model(self) -> Loaded | None:
        """The model as soon as it is there, to look at."""
        return self._loaded

    def ended(self, outcome: Outcome) -> None:
        """A request has ended: count it, keep it, log it."""
        self.tally.count(outcome)
        self.history.add(outcome)
        log(outcome, self._decode if self.config.log_prompts else None)
        if self.trace is not None and self._loaded is not None:
            self.trace(outcome, self._loaded.names[0])

    def _decode(self, ids: Sequence[int]) -> str:
        assert self._loaded is not None, "there are ids of its tokens"
        return self._loaded.engine.tokenizer.decode(ids, skip_special=False)

    @property
    def stream_gap(self) -> float:
        """Seconds between two pieces of a stream: the more there are, the fewer each writes."""
        given = self.config.stream_gap_ms
        if given is None:
            streams = self.tally.streams
            given = min(50, 2 * streams) if streams > 1 else 0
        return given / 1e3
