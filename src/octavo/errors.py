"""Every error a user can cause, as one tree. Bugs of our own stay `assert`s.

OctavoError
├── UsageError            a wrong option or argument: the call itself must change (CLI exit 2)
│   ├── PromptTooLongError
│   └── GrammarError      a grammar that is wrong, too large, or not supported
├── ModelError            a model file that is missing, broken or not supported
│   ├── ModelNotFoundError
│   ├── ModelFormatError  truncated, corrupt or foreign file: names tensor, offset, expectation
│   └── UnsupportedModelError
├── DownloadError         a model could not be fetched
├── TraceError            a line of a trace that is not a request: names file, line, expectation
├── HomeError             no folder for models and caches can be told
├── OutOfMemoryError      the KV budget, or the memory there is, cannot hold what was asked
├── OverloadedError       too many requests wait: the same one may be sent again later
├── ConstraintError       an answer that a grammar does not let go on
├── EngineClosedError     an AsyncEngine that takes no new requests
└── KernelError           the compiled core is missing, or this machine does not let it run

Messages are one line that says what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

# What JSON calls a value of this type; true and false are whole numbers to Python.
KINDS: Mapping[type, str] = MappingProxyType(
    {
        bool: "true or false",
        str: "a string",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
)


class OctavoError(Exception):
    """Base of all errors that a user can mend."""


class UsageError(OctavoError, ValueError):
    """An option or argument is unknown, of the wrong type or out of range."""


class PromptTooLongError(UsageError):
    """The prompt does not fit the context; the message has both numbers."""


class GrammarError(UsageError):
    """A grammar is wrong, too large, or asks for what is not supported."""


class ModelError(OctavoError):
    """A model file is missing, broken or not supported."""


class ModelNotFoundError(ModelError):
    """No model of that name or path."""


class ModelFormatError(ModelError):
    """The file is not what its header, or this program, says it should be."""


class UnsupportedModelError(ModelError):
    """A well-formed model that Octavo does not run."""


class DownloadError(OctavoError):
    """A model could not be fetched or did not match its checksum."""


class TraceError(OctavoError):
    """A trace to replay is not what its format says."""


class HomeError(OctavoError):
    """No folder for models and caches can be told; the message says why."""


class OutOfMemoryError(OctavoError):
    """The KV budget, or the memory there is, cannot hold what was asked for."""


class OverloadedError(OctavoError):
    """Too many requests wait. The same one may be sent again later."""


class ConstraintError(OctavoError):
    """A grammar does not let an answer go on: nothing may follow, or it is beyond its limits."""


class EngineClosedError(OctavoError):
    """An AsyncEngine was used after `drain` or `aclose`."""


class KernelError(OctavoError):
    """The compiled core is missing, or this machine does not let it run."""


def counted(number: int, thing: str) -> str:
    """A count in words: "1 thread", "2,048 threads"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def unknown_option(what: str, name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that is none of `known`: the nearest, or else all of them."""
    import difflib  # here, as wherever names are guessed: a start that goes well does not wait

    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown {what} {name!r}; {hint}")


def kind_of(value: object) -> str:
    """Return what JSON calls a value of this kind."""
    if value is None:
        return "null"
    known = (words for kind, words in KINDS.items() if isinstance(value, kind))
    return next(known, type(value).__name__)
