"""/v1/embeddings over a real socket."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from octavo import LLM
from tests.gate import PATIENCE
from tests.server.live import Live, slowed

EMBEDDINGS = "/v1/embeddings"


def ask(live: Live, given: object, **fields: object) -> list[list[float]]:
    data: list[dict[str, Any]] = live.post(EMBEDDINGS, {"input": given, **fields}).json["data"]
    assert [each["index"] for each in data] == list(range(len(data)))
    return [each["embedding"] for each in data]


def test_embeddings_are_those_of_the_model(live: Live, tiny_llm: LLM) -> None:
    inputs = ["one", "two words", "one"]
    expected = [list(each.embedding or ()) for each in tiny_llm.embed(inputs)]
    assert ask(live, inputs) == expected
    assert ask(live, "one") == ask(live, [111, 110, 101]) == expected[:1]
    assert ask(live, [[111, 110, 101], [104]])[0] == expected[0]
    usage = live.post(EMBEDDINGS, {"input": inputs}).json["usage"]
    assert usage == {"prompt_tokens": 15, "total_tokens": 15}


def test_base64_is_the_same_numbers(live: Live) -> None:
    (floats,) = ask(live, "some text")
    data = live.post(EMBEDDINGS, {"input": "some text", "encoding_format": "base64"}).json["data"]
    packed = base64.b64decode(data[0]["embedding"])
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == floats


def test_the_mean_is_a_choice_of_the_server(tiny_path: Path, tiny_llm: LLM) -> None:
    (expected,) = tiny_llm.embed("some text", pooling="mean")
    with Live(tiny_path, pooling="mean") as live:
        assert ask(live, "some text") == [list(expected.embedding or ())]


def test_it_is_told_what_the_cache_gave(live: Live, tiny_path: Path) -> None:
    def told(server: Live) -> str:
        answer = server.post(EMBEDDINGS, {"input": ["a text of many words", "another"]})
        return answer.headers["x-octavo-cache"].partition(", saved_ms")[0]

    told(live)
    assert told(live) == "matched=25"  # all but the last token of each
    with Live(tiny_path, pooling="mean") as mean:
        assert told(mean) == "matched=0, reason=needs-all-rows"


def test_a_deadline_that_comes_first_is_said(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
        found = live.post(EMBEDDINGS, {"input": ["late", "later"], "deadline_ms": 1})
    told = "deadline_ms=1: the embeddings were not there by then"
    assert (found.status, found.error) == (408, told)


def test_openais_client_reads_them(live: Live) -> None:
    with OpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE) as client:
        found = client.embeddings.create(model="tiny", input=["a", "b"])  # asks for base64
    assert [each.embedding for each in found.data] == ask(live, ["a", "b"])


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "input"), ({"input": []}, "input"), ({"input": [""] * 2049}, "input"),
     ({"input": "x", "dimensions": 3}, "dimensions"), ({"input": "x", "dimensions": "64"},
      "dimensions"), ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
     ({"input": "x", "temperature": 1}, "temperature")],
)  # fmt: skip
def test_what_is_no_input_is_named(live: Live, body: object, param: str) -> None:
    found = live.post(EMBEDDINGS, body)
    assert (found.status, found.json["error"]["param"]) == (400, param)
    assert live.post(EMBEDDINGS, {"input": "x", "dimensions": 64}).status == 200
