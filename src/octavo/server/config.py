"""ServerConfig: every choice about the server, parsed once and frozen. Each has a flag."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.errors import UsageError
from octavo.options import check, described, option
from octavo.protocol.tools.formats import FORMATS
from octavo.request import Pooling
from octavo.values import is_list

Reasoning = Literal["split", "inline"]
_MOST = 2**31 - 1


def _parse_names(name: str, value: object) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else value
    if not is_list(given) or not all(isinstance(each, str) and each for each in given):
        raise UsageError(f"{name}={value!r}: expected a name or a list of them")
    return tuple(given)


@described
@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Choices about the server; those about the model are EngineConfig's."""

    host: str = option("127.0.0.1", "Address to listen on; default 127.0.0.1")
    port: int = option(8000, "Port to listen on; default 8000, 0 = any that is free", 0, 65535)
    uds: str | None = option(None, "Listen on this Unix socket and on no port")
    root_path: str = option("", "Path that a proxy in front of it strips, such as /llm")
    tls_certificate: str | None = option(None, "File with the TLS certificate (PEM)")
    tls_key: str | None = option(None, "File with its private key (PEM)")
    served_model_name: Sequence[str] = option(
        (), "Another name of the model; * takes any name", parse=_parse_names
    )
    chat_template: str | None = option(None, "File with a chat template in place of the model's")
    tool_format: str | None = option(
        None, f"How the model writes calls of tools: {', '.join(FORMATS)}", choices=(None, *FORMATS)
    )
    reasoning: Reasoning = option("split", "split: reasoning has a field of its own; or inline")
    pooling: Pooling = option("last", "Embeddings: the last row of a prompt, or the mean of all")
    api_key_file: str | None = option(
        None, "File of keys, a line each: key [tenant=NAME] [admin]; also OCTAVO_API_KEYS"
    )
    no_auth: bool = option(False, "Serve beyond this machine without keys, all who reach it")
    share_prefix: bool = option(False, "All keys are one tenant, and share the cache")
    allowed_host: Sequence[str] = option(
        (), "A name that clients may call this server by (Host)", parse=_parse_names
    )
    allow_origin: Sequence[str] = option(
        (), "An origin whose web pages may call this server", parse=_parse_names
    )
    max_body: int = option(8 << 20, "Most bytes of a request's body; default 8 MiB", 1024, 2**31)
    max_waiting: int = option(256, "Requests that may wait; default 256", 1, _MOST)
    max_waiting_tokens: int | None = option(
        None, "Tokens of prompts that may wait; default: 16 contexts", 1, 2**40
    )
    max_connections: int = option(1024, "Connections that may be open; default 1024", 1, _MOST)
    drain: float = option(30.0, "Seconds that open requests have to end; default 30", 0, 86400)
    stream_gap_ms: float | None = option(
        None, "Least time between two pieces of a stream; default: grows with their number", 0, 1e4
    )
    strict: bool = option(False, "Refuse fields that would change no answer, in place of noting")
    log_prompts: bool = option(False, "Write prompts and answers to the log")

    def __post_init__(self) -> None:
        check(self)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise UsageError("tls_certificate and tls_key go together: give both or none")
        for name in ("tls_certificate", "tls_key", "api_key_file", "chat_template"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise UsageError(f"{name}={path!r}: no such file")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.uds is not None or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
