"""Calls that must be made, by a model that knows none: drawn under a grammar, read as calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo import LLM, RequestOptions, SamplingParams
from octavo.protocol.answer import AnswerReader, collect
from octavo.protocol.tools.asked import Tool, Tools
from octavo.protocol.tools.formats import FORMATS, tool_format_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"enum": [1, 22, "three"]}},
    "required": ["a"],
}
BOTH = (Tool("add", "Adds", SCHEMA), Tool("now"))


@pytest.mark.parametrize("name", ["add", "now"])
@pytest.mark.parametrize("form", FORMATS)
def test_an_answer_is_a_call_that_keeps_the_schema(llm: LLM, form: str, name: str) -> None:
    tools = Tools(BOTH, "required", frozenset([name]))
    format = tool_format_of(None, form)
    text = format.grammar(tools)
    assert text is not None
    options = RequestOptions(constraint=llm.grammar(lark=text))
    for seed in range(3):
        params = SamplingParams(temperature=1.0, seed=seed, max_tokens=150)
        (answer,) = llm.generate([[1, 2, 3]], params, options)[0].outputs
        assert answer.finish_reason == "stop"
        reader = AnswerReader(format, None, tools, format.new_id)
        found = collect([*reader.push(answer.text), *reader.finish()])
        assert found.content is None
        (call,) = found.calls
        assert call.name == name
        arguments = json.loads(call.arguments)
        assert arguments == {} if name == "now" else arguments["a"] in (1, 22, "three")
