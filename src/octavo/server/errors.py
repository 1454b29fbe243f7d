"""Errors as responses: the API's own shape, its status, and one sentence.

Whatever is no error of a caller is told as the server's, without paths or traces, and logged whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from octavo.errors import OctavoError
from octavo.protocol.bodies import BodyError
from octavo.protocol.common import ApiError, error_body, message_of, status_of

Api = Literal["openai", "anthropic"]

logger = logging.getLogger(__name__)

_MESSAGES = "/v1/messages"
_THREAD = "thread"  # its client sends one first, and by these details knows to do without
_ANTHROPIC: Mapping[int, str] = MappingProxyType(
    {
        **{401: "authentication_error", 403: "permission_error", 404: "not_found_error"},
        **{408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error"},
        529: "overloaded_error",
    }
)


def as_octavo_error(error: BaseException, request_id: str) -> OctavoError:
    """Return the error as it may be told; what nobody foresaw is logged with the id."""
    if isinstance(error, OctavoError) and not is_unforeseen(error):
        return error
    logger.error("request %s failed", request_id, exc_info=error)
    return ApiError(500, f"the server failed at this request; its log has more under {request_id}")


def wrong_method(allowed: Iterable[str]) -> ApiError:
    return ApiError(405, "this route does not take that method", allow=sorted(set(allowed)))


def is_unforeseen(error: OctavoError) -> bool:
    return status_of(error) >= 500 and not isinstance(error, ApiError) and status_of(error) != 503


def api_of(path: str, headers: Mapping[str, str]) -> Api:
    """Whose words the caller reads: told by the path, or by the header of Anthropic's clients."""
    is_messages = path == _MESSAGES or path.startswith(f"{_MESSAGES}/")
    return "anthropic" if is_messages or "anthropic-version" in headers else "openai"


def status_for(error: OctavoError, api: Api) -> int:
    """Anthropic's clients know a server that cannot take requests by a status of its own."""
    status = status_of(error)
    return 529 if api == "anthropic" and status == 503 else status


def body_of(error: OctavoError, api: Api, request_id: str) -> dict[str, object]:
    """The body in the shape of an API."""
    if api == "openai":
        return error_body(error)
    status = status_for(error, api)
    kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
    told: dict[str, object] = {"type": kind, "message": message_of(error)}
    if isinstance(error, BodyError) and error.param == _THREAD:
        told["details"] = {"error_code": "thread_unsupported_request", "unsupported": [_THREAD]}
    return {"type": "error", "error": told, "request_id": request_id}


def headers_of(error: OctavoError) -> dict[str, str]:
    """Say when to come again, or how; and after a body that does not come nothing follows."""
    headers = {"connection": "close"} if status_of(error) == 408 else {}
    if isinstance(error, ApiError) and error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, ApiError) and error.allow:
        headers["allow"] = ", ".join(error.allow)
    return headers
