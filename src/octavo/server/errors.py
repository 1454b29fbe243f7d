"""Errors as responses: the API's own shape, its status, and one sentence.

Whatever is no error of a caller is told as the server's, without paths or traces, and logged whole.
"""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException

from octavo.errors import OctavoError
from octavo.protocol.common import ApiError, error_body, status_of

logger = logging.getLogger(__name__)

_STATUS_TEXT = {404: "there is no such route", 405: "this route does not take that method"}


def as_octavo_error(error: BaseException, request_id: str) -> OctavoError:
    """Return the error as it may be told; what nobody foresaw is logged with the id."""
    if isinstance(error, HTTPException):
        text = _STATUS_TEXT.get(error.status_code, "the request was refused")
        return ApiError(error.status_code, text)
    if isinstance(error, OctavoError) and not is_unforeseen(error):
        return error
    logger.error("request %s failed", request_id, exc_info=error)
    return ApiError(500, f"the server failed at this request; its log has more under {request_id}")


def is_unforeseen(error: OctavoError) -> bool:
    return status_of(error) >= 500 and not isinstance(error, ApiError) and status_of(error) != 503


def body_of(error: OctavoError, path: str) -> dict[str, object]:
    """The body in the shape of the API that the path is of."""
    return error_body(error)


def headers_of(error: OctavoError) -> dict[str, str]:
    """Say when to come again; and after a body that was not read to its end nothing follows."""
    headers = {"connection": "close"} if status_of(error) in (408, 413) else {}
    if isinstance(error, ApiError) and error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return headers
