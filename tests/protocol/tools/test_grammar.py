"""Grammars of required calls: what llguidance lets through is read as calls."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import llguidance
import numpy as np
import pytest

from octavo.errors import GrammarError
from octavo.grammar import GrammarSpec
from octavo.protocol.answer import AnswerReader, Text, collect
from octavo.protocol.bodies import BodyError
from octavo.protocol.tools.asked import Tool, Tools
from octavo.protocol.tools.formats import FORMATS, tool_format_of
from tests.grammar.toy import accepts, compiled
from tests.protocol.tools.calls import events, reader

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/small"}, "b": {"enum": ['x\n"', "é"]}},
    "required": ["a", "b"],
    "$defs": {"small": {"type": "integer", "minimum": 0, "maximum": 9}},
}
BYTES = llguidance.LLTokenizer("byte")
TOOLS = (Tool("add", None, SCHEMA), Tool("get_time"))
ADDED = '{"a": 1, "b": "x\\n\\""}'


def grammar(form: str, tools: Tools, **more: Any) -> str:
    text = tool_format_of(None, form).grammar(tools, **more)
    assert text is not None
    return text


def matcher(text: str) -> llguidance.LLMatcher:
    found = llguidance.LLMatcher(BYTES, llguidance.LLMatcher.grammar_from_lark(text))
    assert not found.is_error(), found.get_error()
    return found


def takes(text: str, answer: str) -> bool:
    """All of the answer may be written, and the answer may end there."""
    state = matcher(text)
    tokens = list(answer.encode())
    return bool(state.try_consume_tokens(tokens) == len(tokens) and state.is_accepting())


def drawn(text: str, rng: random.Random) -> str:
    """Any answer that the grammar allows, byte by byte."""
    state = matcher(text)
    found = bytearray()
    words = np.zeros((BYTES.vocab_size + 31) // 32, dtype=np.int32)
    while not state.is_stopped():
        state.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        token = rng.choice(np.flatnonzero(bits).tolist())
        if token == BYTES.eos_token:
            break
        assert state.consume_token(token)
        found.append(token)
    return found.decode()


@pytest.mark.parametrize("form", FORMATS)
def test_whatever_is_drawn_is_read_as_calls(form: str) -> None:
    rng = random.Random(17)
    for tools in (Tools(TOOLS, "required"), Tools(TOOLS, "required", frozenset(["add"]))):
        text = grammar(form, tools)
        for _ in range(8):
            written = drawn(text, rng)
            found = collect(events(reader(form, tools=tools), list(written)))
            assert found.content is None, written
            assert found.calls, written
            assert {call.name for call in found.calls} <= tools.names
            assert {c.arguments for c in found.calls if c.name == "get_time"} <= {"{}"}
            assert len(found.calls) == 1 or not tools.is_named


@pytest.mark.parametrize("form", FORMATS)
def test_a_call_as_models_write_it_is_allowed(form: str) -> None:
    dialect = tool_format_of(None, form).dialect
    arguments = {"a": 1, "b": 'x\n"'}
    one = dialect.written("add", arguments)
    for tools in (Tools(TOOLS, "required"), Tools(TOOLS, "required", frozenset(["add"]))):
        assert takes(grammar(form, tools), one)
        assert not takes(grammar(form, tools), one.replace('"a": 1', '"a": 11'))
        assert not takes(grammar(form, tools), one[:-1])
        assert not takes(grammar(form, tools), f"So: {one}")
    named = Tools(TOOLS, "required", frozenset(["get_time"]))
    assert takes(grammar(form, named), dialect.written("get_time", {}))
    assert not takes(grammar(form, named), one)


def test_several_calls_where_they_are_allowed() -> None:
    one = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    for parallel in (True, False):
        text = grammar("hermes", Tools(TOOLS, "required", parallel=parallel))
        assert takes(text, f"{one}\n{one}") is parallel
        assert takes(text, one)
    several = grammar("hermes", Tools(TOOLS, "required"))
    assert takes(several, "\n".join([one] * 16))
    assert not takes(several, "\n".join([one] * 17))


def test_tags_that_are_control_tokens_stand_by_their_ids() -> None:
    text = grammar(
        "mistral-args", Tools(TOOLS[1:], "required"), control={"[TOOL_CALLS]": 65, "[ARGS]": 66}
    )
    assert takes(text, "Aget_timeB{}")
    assert takes(text, "Aget_timeB{}Aget_timeB{}")
    assert not takes(text, "[TOOL_CALLS]get_time[ARGS]{}")


def test_properties_that_nobody_named_are_left_out_unless_the_schema_speaks_of_them() -> None:
    tools = [
        Tool("add", None, {**SCHEMA, **more})
        for more in ({}, {"additionalProperties": True}, {"anyOf": [{"required": ["c"]}]})
    ]
    written = tool_format_of(None, "hermes").dialect.written("add", {"a": 1, "b": "é", "c": 1})
    texts = [grammar("hermes", Tools((tool,), "required")) for tool in tools]
    assert [takes(text, written) for text in texts] == [False, True, True]


def many(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {} for i in range(count)}}


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({**SCHEMA, "x-guidance": {"lenient": True}}, "the schema has x-guidance, which is not"),
        (many(1_001), "the schema has 1,001 properties: at most 1,000"),
    ],
)
def test_parameters_that_no_grammar_may_have_are_refused_where_one_is_needed(
    parameters: dict[str, Any], why: str
) -> None:
    tool = Tool("add", None, parameters)
    for tools in (Tools((tool,), "required"), Tools((replace(tool, strict=True),))):
        with pytest.raises(BodyError) as caught:
            grammar("hermes", tools)
        assert str(caught.value).startswith(f"tools: parameters of 'add': {why}")
        assert caught.value.param == "tools"
    assert tool_format_of(None).grammar(Tools((tool,))) is None


def test_blanks_are_those_of_training() -> None:
    text = grammar("hermes", Tools(TOOLS, "required"))
    written = tool_format_of(None, "hermes").dialect.written("add", {"a": 1, "b": "é"})
    assert takes(text, written)
    assert not takes(text, written.replace('"a": 1', '"a":  1'))


@pytest.mark.parametrize("choice", ["none", "auto"])
def test_nothing_is_forced_where_an_answer_may_be_text(choice: Any) -> None:
    assert tool_format_of(None).grammar(Tools(TOOLS, choice)) is None


@pytest.mark.parametrize("form", FORMATS)
def test_strict_tools_keep_their_schemas_in_answers_that_may_be_text(form: str) -> None:
    tools = Tools((Tool("add", None, SCHEMA, strict=True), Tool("get_time")))
    text = grammar(form, tools)
    written = tool_format_of(None, form).dialect.written
    good = written("add", {"a": 1, "b": "é"})
    for answer in ("", "So.\n", "[TOOL", "a {", good, written("get_time", {"any": ["thing"]})):
        assert takes(text, answer), answer
    assert not takes(text, good.replace('"a": 1', '"a": 11'))
    assert not takes(text, good.replace("add", "sub"))
    assert takes(text, f"So: {good}")
    if form != "llama3":  # there only the beginning of an answer is a call
        assert takes(text, f"So: {good}\nDone.")
        assert not takes(text, f"So: {good}".replace('"a": 1', '"a": 11'))


def test_every_call_of_strict_tools_is_one() -> None:
    one = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    several = grammar("hermes", Tools((Tool("get_time", strict=True),)))
    assert takes(several, f"{one} and {one}" * 20)
    assert not takes(several, f'{one}<tool_call>\n{{"name": "x"')


def test_strict_tools_stand_behind_a_tag_that_is_a_control_token() -> None:
    text = grammar(
        "mistral-args", Tools((Tool("add", None, SCHEMA, strict=True),)),
        control={"[TOOL_CALLS]": 1, "[ARGS]": 2},
    )  # fmt: skip
    assert takes(text, "So.\n")
    assert takes(text, 'So: \x01add\x02{"a": 1, "b": "é"} and')
    assert takes(text, 'So: [TOOL_CALLS]add[ARGS]{"a": 11}')


BODIES = (
    GrammarSpec.of(json={**SCHEMA, "properties": {**SCHEMA["properties"], "name": {}}}),
    GrammarSpec("json_object"),
    GrammarSpec.of(choice=["yes", "no"]),
    GrammarSpec.of(regex="[a-z ]+"),
)
FITTING = ('{"a": 1, "b": "é", "name": "add"}', '{"x": [1]}', "no", "so it is")


@pytest.mark.parametrize("after", [None, "</think>"])
@pytest.mark.parametrize("form", FORMATS)
def test_an_answer_is_calls_or_what_another_grammar_says(form: str, after: str | None) -> None:
    chosen = tool_format_of(None, form)
    tools = Tools((Tool("add", None, SCHEMA, strict=True), Tool("get_time")))
    written = chosen.dialect.written
    call, free = written("add", {"a": 1, "b": "é"}), written("get_time", {"any": ["thing"]})
    begun = "so</think> \n" if after else ""
    for body, fits in zip(BODIES, FITTING, strict=True):
        spec = replace(body, instead=chosen.grammar_beside(tools, {}), after=after)
        held = compiled(spec)
        for good in (fits, call, free):
            assert accepts(held, begun + good), (body.kind, good)
        for bad in ("", fits + call, f"{call}\n{fits}", call[:-1], "So: " + call, fits[:-1]):
            if body.kind != "regex" or not bad.replace(" ", "").isalpha():
                assert not accepts(held, begun + bad), (body.kind, bad)
        if body.kind != "json_object" or form != "llama3":  # which any object is
            assert not accepts(held, begun + call.replace('"a": 1', '"a": 11'))


@pytest.mark.parametrize("form", FORMATS)
def test_what_looks_like_a_call_inside_of_an_answer_is_its_text(form: str) -> None:
    chosen = replace(tool_format_of(None, form), alone=True)
    call = chosen.dialect.written("add", {"a": 1})
    for text in (f"{{'x': {call}}}", f'{{"x": "{call}"}}', f"[{call}]"):
        reads = AnswerReader(chosen, None, Tools(TOOLS), str)
        assert events(reads, list(text)) == [Text(text)]
    reads = AnswerReader(chosen, None, Tools(TOOLS), str)
    found = collect(events(reads, list(f"\n{call}")))
    assert (found.content, [each.name for each in found.calls]) == (None, ["add"])


def test_both_grammars_together_keep_the_limit_of_one() -> None:
    tools = Tools((Tool("add", None, {"type": "object", "description": "x" * 40_000}, True),))
    with pytest.raises(GrammarError, match=r"has [0-9,]+ bytes: at most 65,536"):
        GrammarSpec("regex", "a" * 40_000, instead=tool_format_of(None).grammar_beside(tools, {}))
