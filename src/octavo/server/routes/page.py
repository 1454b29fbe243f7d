"""`/`: a page to talk to, in three files that need nothing else.

The page is for a person at a browser; it knows the server only by the API that all clients have.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from octavo.server.exchange import Exchange
from octavo.server.intake import Handler

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


def _file(name: str, media_type: str) -> Handler:
    async def show(exchange: Exchange) -> None:
        await exchange.respond_bytes(_read(name), f"{media_type}; charset=utf-8", headers=_HEADERS)

    return show


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


index = _file("index.html", "text/html")
script = _file("page.js", "text/javascript")
style = _file("page.css", "text/css")
