"""Answers that are held to a schema, over a real socket and by OpenAI's own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from openai import OpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.gate import PATIENCE
from tests.server.live import Live

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "seed": 2}
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
          "additionalProperties": False}  # fmt: skip
FORMAT = {"type": "json_schema", "json_schema": {"name": "ok", "schema": SCHEMA}}


def content(live: Live, **fields: object) -> str:
    answer = live.post(CHAT, {**HI, **fields})
    assert answer.status == 200, answer
    text: str = answer.json["choices"][0]["message"]["content"]
    return text


def test_an_answer_keeps_its_schema_whole_and_in_pieces(roomy: Live) -> None:
    text = content(roomy, response_format=FORMAT)
    assert set(json.loads(text)) == {"ok"}
    *chunks, _ = roomy.post(CHAT, {**HI, "response_format": FORMAT, "stream": True}).events
    deltas = [each["choices"][0]["delta"] for each in chunks]
    assert "".join(each.get("content", "") for each in deltas) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_other_words_for_the_same(roomy: Live) -> None:
    assert content(roomy, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
    assert content(roomy, guided_regex="[ab]{3}").strip("ab") == ""
    body = {"prompt": "x", "guided_choice": ["one", "two"], "n": 3, "seed": 1, "max_tokens": 9}
    texts = [each["text"] for each in roomy.post(COMPLETIONS, body).json["choices"]]
    assert set(texts) <= {"one", "two"}
    assert len(texts) == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"response_format": {"type": "yaml"}}, "response_format.type"),
     ({"guided_regex": "("}, "grammar"),
     ({"guided_choice": ["a"], "guided_regex": "a"}, "give one of them"),
     ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema":
       {"not": {}}}}}, "not"),
     ({"guided_choice": ["a"], "ignore_eos": True}, "cannot be combined")],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(roomy: Live, fields: dict[str, Any], why: str) -> None:
    answer = roomy.post(CHAT, {**HI, **fields})
    assert answer.status == 400
    assert why in answer.error


class Login(BaseModel):
    """Fields whose schemas have formats of pydantic's own."""

    key: SecretStr = Field(max_length=4)
    home: Path = Field(max_length=4)
    data: bytes = Field(max_length=4)


class Step(BaseModel):
    name: Literal["a", "b"]
    done: bool


class Plan(BaseModel):
    first: Step
    rest: list[Literal[1, 2]]


def test_openais_client_parses_nested_models(roomy: Live) -> None:
    with OpenAI(base_url=f"{roomy.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE) as client:
        found = client.chat.completions.parse(
            model="tiny", messages=[{"role": "user", "content": "hi"}], response_format=Plan,
            seed=1, max_tokens=600,
        )  # fmt: skip
    (choice,) = found.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Plan)


def test_formats_of_pydantics_own_are_no_hindrance(roomy: Live) -> None:
    schema = Login.model_json_schema()
    assert {each["format"] for each in schema["properties"].values()} == {
        "password", "path", "binary"
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "login", "schema": schema}}
    found = json.loads(content(roomy, response_format=form, max_tokens=900))
    assert found.keys() == {"key", "home", "data"}
    answer = roomy.post(CHAT, {**HI, "response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "string", "format": "iri"}}}})  # fmt: skip
    assert (answer.status, "Unknown format: iri" in answer.error) == (400, True)
