"""/v1/embeddings: the body in, the response out."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from octavo.protocol.bodies import BodyError, Fields, read_body, read_text
from octavo.protocol.common import ApiError
from octavo.protocol.fields import honoured, noted, of_options, table, whole
from octavo.protocol.prompts import TextOrIds, read_prompts
from octavo.protocol.sampling import read_model, read_options
from octavo.request import RequestOptions, RequestOutput
from octavo.values import is_whole

EMBEDDING_FIELDS = table(
    honoured("input", "A text, token ids, or a list of either"),
    honoured("model", "The name of the model; without it, the one that is loaded", str),
    honoured("encoding_format", "float, or base64 of little-endian float32", str),
    whole("dimensions", "The model's own number; others are refused", 1, 2**31 - 1),
    *of_options(RequestOptions, ("priority", "deadline_ms", "cache_salt")),
    *noted("user", "safety_identifier", "metadata"),
)
FORMATS = ("float", "base64")


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    model: str | None
    inputs: tuple[TextOrIds, ...]
    encoding: Literal["float", "base64"]
    dimensions: int | None
    options: RequestOptions
    noted: tuple[str, ...]

    def check_dimensions(self, width: int) -> None:
        """Raises BodyError for another width than the model's."""
        if self.dimensions is not None and self.dimensions != width:
            why = f"dimensions={self.dimensions}: this model's embeddings have {width}"
            raise BodyError(f"{why}, and are not cut", "dimensions")


def parse_embeddings(body: object) -> EmbeddingRequest:
    """Raises BodyError."""
    read = read_body(body, EMBEDDING_FIELDS)
    fields = read.fields
    dimensions = fields.get("dimensions")
    if dimensions is not None and not (is_whole(dimensions) and dimensions > 0):
        raise BodyError(f"dimensions={dimensions!r}: expected a whole number", "dimensions")
    return EmbeddingRequest(
        model=read_model(fields),
        inputs=read_prompts(fields.get("input"), "input"),
        encoding=_read_encoding(fields),
        dimensions=dimensions,
        options=read_options(fields),
        noted=read.noted,
    )


def embedding_response(
    request: EmbeddingRequest, outputs: Sequence[RequestOutput], *, model: str
) -> dict[str, object]:
    """Raises ApiError where the deadline came before the last of them."""
    if any(output.embedding is None for output in outputs):
        why = f"deadline_ms={request.options.deadline_ms}: the embeddings were not there by then"
        raise ApiError(408, why, param="deadline_ms")
    prompt_tokens = sum(output.usage.prompt_tokens for output in outputs)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": _written(output, request.encoding)}
            for i, output in enumerate(outputs)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _read_encoding(fields: Fields) -> Literal["float", "base64"]:
    given = read_text(fields, "encoding_format") or "float"
    if given not in FORMATS:
        why = f"encoding_format={given!r}: expected float or base64"
        raise BodyError(why, "encoding_format")
    return "base64" if given == "base64" else "float"


def _written(output: RequestOutput, encoding: str) -> object:
    assert output.embedding is not None
    if encoding == "float":
        return output.embedding
    return base64.b64encode(struct.pack(f"<{len(output.embedding)}f", *output.embedding)).decode()
