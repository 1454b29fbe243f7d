"""Whether a body is one that the OpenAPI document describes."""

from __future__ import annotations

import functools
from typing import Any

import jsonschema

from octavo.server.openapi import document


def accepts(path: str, body: object) -> bool:
    return bool(_validator(path).is_valid(body))


@functools.cache
def _validator(path: str) -> Any:
    found: Any = document()
    schema = found["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator({**schema, "components": found["components"]})
