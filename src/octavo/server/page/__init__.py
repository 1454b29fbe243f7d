"""The page's files: one table for those who serve, open and describe them. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class File:
    name: str  # in this folder
    media_type: str
    gives: str
    summary: str  # a sentence without its full stop


# By path; they name each other by their names, so that a proxy may serve them under any folder.
FILES: Mapping[str, File] = MappingProxyType(
    {
        "/": File("index.html", "text/html", "the page", "Give a page to talk to the model on"),
        "/page.js": File("page.js", "text/javascript", "the script", "Give that page's script"),
        "/answer.js": File(
            "answer.js", "text/javascript", "a script", "Give what draws that page's answers"
        ),
        "/page.css": File("page.css", "text/css", "the style", "Give that page's style"),
    }
)
