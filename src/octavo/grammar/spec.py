"""GrammarSpec: a grammar as it was asked for, and the limits that it must keep before anything is
compiled. Knows JSON, and no library of grammars.

The limits bound the time that compiling takes: it grows with the square of optional properties, and
with what a pattern has to repeat.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from octavo.errors import GrammarError, UsageError, counted, kind_of
from octavo.grammar.repeats import longest_of_lark, longest_of_regex
from octavo.values import is_list

GrammarKind = Literal["json", "json_object", "regex", "choice", "lark"]

MAX_BYTES = 64 << 10
MAX_PROPERTIES = 1_000
MAX_ENUM_VALUES = 10_000
MAX_DEPTH = 64
_DIGITS = 4_300  # of a whole number
MAX_LENGTH = 32_768  # of what a pattern asks for: beyond some 50,000 each step is slow

# Those that JSON Schema defines. Any other is a remark: pydantic's "path", OpenAPI's "int32".
_FORMATS = frozenset(
    {
        *("date-time", "date", "time", "duration", "email", "idn-email", "hostname"),
        *("idn-hostname", "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid"),
        *("uri-template", "json-pointer", "relative-json-pointer", "regex"),
    }
)
_VALUES = frozenset({"const", "enum", "default", "examples"})  # no schema stands in them


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """`source` is a JSON schema, a regular expression, a JSON list of texts, or a Lark grammar; of
    a `json_object` it is empty. `instead`: Lark of what an answer may be in its place, as calls of
    tools. `after`: the grammar holds after this text, as reasoning ends with one; before it all is
    allowed but an end. `frame`: Lark of the whole answer, in which the grammar stands as `@body`;
    then there is neither `instead` nor `after`."""

    kind: GrammarKind
    source: str = ""
    after: str | None = None
    instead: str | None = None
    frame: str | None = None

    def __post_init__(self) -> None:
        """Raises GrammarError for what is too large, in far less time than it would take."""
        texts = (self.source, self.instead or "", self.frame or "")
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if size > MAX_BYTES:
            raise GrammarError(
                f"the grammar ({self.kind}) has {size:,} bytes: at most {MAX_BYTES:,} are taken"
            )
        if self.after == "":
            raise GrammarError("after: expected a text that is not empty")

    def check(self) -> None:
        """Raises GrammarError for what can be told without compiling: it takes a few ms."""
        if self.kind == "json":
            read_schema(self.source)
        elif self.kind == "choice":
            read_choice(self.source)
        elif self.kind == "regex":
            read_regex(self.source)
        elif self.kind == "lark":
            read_lark(self.source)

    @classmethod
    def of(
        cls,
        *,
        json: Mapping[str, Any] | bool | str | None = None,
        regex: str | None = None,
        lark: str | None = None,
        choice: Sequence[str] | None = None,
        after: str | None = None,
    ) -> GrammarSpec:
        """The one that is given. Raises UsageError unless it is one, GrammarError."""
        given = {"json": json, "regex": regex, "lark": lark, "choice": choice}
        found = [(kind, value) for kind, value in given.items() if value is not None]
        if len(found) != 1:
            raise UsageError("a grammar is one of json, regex, lark and choice: give one of them")
        ((kind, value),) = found
        if kind == "choice" and not is_list(value):
            raise GrammarError(f"choice: expected a list of texts, found {kind_of(value)}")
        if kind in ("regex", "lark") and not isinstance(value, str):
            raise GrammarError(f"{kind}: expected a string, found {kind_of(value)}")
        source = value if isinstance(value, str) else _written(kind, value)
        return cls(kind, source, after)  # type: ignore[arg-type]  # one of the four


def read_schema(source: str) -> dict[str, Any]:
    """Return a JSON schema that keeps the limits, without formats that say nothing. Raises
    GrammarError."""
    schema = _parsed("json", source)
    if schema is False:
        raise GrammarError("the schema is false, which no document is valid against")
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise GrammarError(f"the schema: expected an object, found {kind_of(schema)}")
    if "x-guidance" in schema:
        raise GrammarError("the schema has x-guidance, which is not supported: leave it out")
    _check_size(schema)
    meant: dict[str, Any] = _meant("", schema)
    return meant


def read_choice(source: str) -> list[str]:
    """Return the texts of a choice. Raises GrammarError."""
    texts = _parsed("choice", source)
    if not isinstance(texts, list) or not texts:
        raise GrammarError("choice: expected a list of at least one text")
    if len(texts) > MAX_ENUM_VALUES:
        raise GrammarError(f"choice has {len(texts):,} texts: at most {MAX_ENUM_VALUES:,}")
    for text in texts:
        if not isinstance(text, str) or not text:
            raise GrammarError(f"choice: expected texts that are not empty, found {text!r}")
    return texts


def read_regex(source: str) -> str:
    """Return a regular expression that keeps the limits. Raises GrammarError."""
    _check_length("the regular expression", longest_of_regex(source))
    return source


def read_lark(source: str) -> str:
    """Return a Lark grammar that keeps the limits. Raises GrammarError."""
    _check_length("the grammar", longest_of_lark(source))
    return source


def _written(kind: str, value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"{kind}: it cannot be written as JSON: {error}") from None


def _parsed(kind: str, source: str) -> Any:
    try:
        return json.loads(source, parse_int=_whole, parse_float=_number, parse_constant=_no_number)
    except RecursionError:
        raise GrammarError(f"{kind}: nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise GrammarError(f"{kind}: not JSON: {error}") from None


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number has {len(text):,} digits: at most {_DIGITS:,}")
    return int(text)


def _number(text: str) -> float | int:
    """2.0 counts as 2 in a schema, also where a whole number is wanted."""
    whole, _, fraction = text.partition(".")
    if fraction and not fraction.strip("0") and len(whole) < 20:
        return int(whole)
    if math.isinf(number := float(text)):
        raise ValueError(f"{text:.40} is beyond all numbers")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _check_size(schema: dict[str, Any]) -> None:
    properties = values = 0
    for key, value, depth in _walk(schema):
        if depth > MAX_DEPTH:
            raise GrammarError(f"the schema is nested more than {MAX_DEPTH} deep")
        for pattern in _patterns(key, value):
            _check_length("a pattern of the schema", longest_of_regex(pattern))
        if isinstance(value, dict) and key in ("properties", "patternProperties"):
            properties += len(value)
        elif isinstance(value, list) and key == "enum":
            values += len(value)
    if properties > MAX_PROPERTIES:
        had = f"{properties:,} properties"
        raise GrammarError(f"the schema has {had}: at most {MAX_PROPERTIES:,} are taken")
    if values > MAX_ENUM_VALUES:
        had = counted(values, "enum value")
        raise GrammarError(f"the schema has {had}: at most {MAX_ENUM_VALUES:,} are taken")


def _patterns(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(pattern := value.get("pattern"), str):
            yield pattern
        if key == "patternProperties":
            yield from value


def _check_length(what: str, length: int) -> None:
    if length > MAX_LENGTH:
        raise GrammarError(
            f"{what} asks for {length:,} characters at least: at most {MAX_LENGTH:,} are taken"
        )


def _meant(key: str, value: Any) -> Any:
    """What stands under a key of a schema, without formats that say nothing."""
    if key in _VALUES:
        return value
    if isinstance(value, list):
        return [_meant("", each) for each in value]
    if isinstance(value, dict):
        return {k: _meant(k, each) for k, each in value.items() if not _says_nothing(k, each)}
    return value


def _says_nothing(key: str, value: object) -> bool:
    return key == "format" and isinstance(value, str) and value not in _FORMATS


def _walk(schema: dict[str, Any]) -> Iterator[tuple[str, object, int]]:
    """Every list and object with the key it stands under, and how deep it is."""
    open_: list[tuple[str, Any, int]] = [("", schema, 1)]
    while open_:
        key, value, depth = open_.pop()
        yield key, value, depth
        inner = value.items() if isinstance(value, dict) else ((key, each) for each in value)
        open_ += [(k, each, depth + 1) for k, each in inner if isinstance(each, (dict, list))]
