"""`/`: a page to talk to, in a few files that need nothing else.

The page is for a person at a browser; it knows the server only by the API that all clients have.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from octavo.server.exchange import Exchange
from octavo.server.intake import Handler
from octavo.server.page import FILES, File

_FOLDER = Path(__file__).parents[1] / "page"
# Nothing but its own files, and nobody but its own server.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _show(file: File) -> Handler:
    async def show(exchange: Exchange) -> None:
        kind = f"{file.media_type}; charset=utf-8"
        await exchange.respond_bytes(_read(file.name), kind, headers=_HEADERS)

    return show


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


ROUTES = tuple(("GET", path, _show(file)) for path, file in FILES.items())
