"""What holds an answer in channels: reasoning first, and then what was asked for in its place."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import ConstraintError
from octavo.grammar import Grammars, GrammarSpec, Vocabulary
from octavo.protocol.chat import parse_chat
from octavo.protocol.conversation import Conversation
from octavo.protocol.tools.harmony.header import CALL, RETURN, TAGS
from tests.protocol.tools.harmony.shape import TEMPLATE

TOKENS = [*(tag.encode() for tag in TAGS), *(bytes([byte]) for byte in range(256))]
FIRST = len(TAGS)
IDS = {tag: i for i, tag in enumerate(TAGS)}
ENDS = {IDS[CALL], IDS[RETURN]}
VOCABULARY = Vocabulary(
    TOKENS,
    hidden=range(FIRST),
    ends=ENDS,
    encode=lambda text: [FIRST + byte for byte in text.encode()],
)
GRAMMARS = Grammars(lambda: VOCABULARY)
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
HI = [{"role": "user", "content": "?"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
PLACE = "response_format.json_schema.schema"
ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
COMMENTARY, NEXT = "<|channel|>commentary<|message|>", "<|end|><|start|>assistant"
THOUGHT = f"{ANALYSIS}So <b> [1] é{NEXT}"
SAID = f"{COMMENTARY}I look.{NEXT}"
HEADER = "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>"
ROME, OTHER = HEADER.format("weather") + '{"city": "Rome"}', HEADER.format("clock") + "{}"
ELSEWHERE = ROME.replace("Rome", "Bonn")
ANY = HEADER.format("clock") + '{"any": ["thing"]}'


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


STRICT = [tool("weather", parameters=CITY, strict=True), tool("clock")]
LOOSE = [tool("weather", parameters=CITY), tool("clock")]


def held(has_control: bool = True, template: str = TEMPLATE, **fields: Any) -> GrammarSpec | None:
    conversation = Conversation(lambda tools: template, IDS.get if has_control else lambda _: None)
    return conversation.turn(parse_chat({"messages": HI, **fields})).grammar


def ids_of(text: str, has_control: bool) -> list[int]:
    found = []
    while text:
        tag = next((t for t in TAGS if text.startswith(t)), None) if has_control else None
        piece = tag or text[0]
        found += [IDS[tag]] if tag else [FIRST + byte for byte in piece.encode()]
        text = text[len(piece) :]
    return found


def takes(spec: GrammarSpec | None, text: str, *, has_control: bool = True) -> bool:
    """The text may be a whole answer."""
    assert spec is not None
    state = GRAMMARS.compile(spec).start()
    words = VOCABULARY.words(())
    for token in ids_of(text, has_control):
        state.fill_mask(words)
        if not words[token // 32] >> (token % 32) & 1:
            return False
        state.accept(token)
    try:
        state.fill_mask(words)
    except ConstraintError:
        return False
    return state.is_done or all(words[end // 32] >> (end % 32) & 1 for end in ENDS)


@pytest.mark.parametrize("has_control", [True, False])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_call_that_must_be_made_may_have_reasoning_before_it(
    choice: Any, has_control: bool
) -> None:
    spec = held(has_control, tools=LOOSE, tool_choice=choice)
    assert spec is not None
    assert (spec.kind, spec.frame) == ("lark", None)

    def allowed(text: str) -> bool:
        return takes(spec, text, has_control=has_control)

    for before in ("", THOUGHT, THOUGHT * 2):
        assert allowed(before + ROME)
        assert allowed(before + OTHER) is (choice == "required")
        for wrong in ("", ELSEWHERE, ROME[:-1], f"{FINAL}x", SAID + ROME, ANY, "x" + ROME):
            assert not allowed(before + wrong), before + wrong
    assert not allowed(THOUGHT + ROME + NEXT + ROME)


@pytest.mark.parametrize("has_control", [True, False])
def test_a_format_holds_the_final_message(has_control: bool) -> None:
    spec = held(has_control, response_format=SCHEMA)
    assert spec is not None
    assert (spec.kind, spec.after, spec.instead) == ("json", None, None)
    for before in ("", THOUGHT, THOUGHT + THOUGHT):
        good = before + FINAL + '{"city": "Oslo"}'
        assert takes(spec, good, has_control=has_control)
        assert not takes(spec, SAID + good, has_control=has_control)
        for wrong in ("", FINAL, f"{FINAL}x", '{"city": "Oslo"}', good.replace("Oslo", "Bonn")):
            assert not takes(spec, before + wrong, has_control=has_control), before + wrong


@pytest.mark.parametrize(
    ("asked", "good", "bad"),
    [({"structured_outputs": {"regex": "a+"}}, "aaa", "b"),
     ({"guided_choice": ["yes", "no"]}, "no", "maybe"),
     ({"guided_grammar": 'start: "x" NAME\nNAME: /[a-z]/'}, "xy", "y"),
     ({"response_format": {"type": "json_object"}}, '{"any": 1}', "[]")],
)  # fmt: skip
def test_so_does_every_kind_of_it(asked: dict[str, Any], good: str, bad: str) -> None:
    spec = held(**asked)
    assert takes(spec, THOUGHT + FINAL + good)
    assert not takes(spec, THOUGHT + FINAL + bad)
    assert not takes(spec, good)


def test_beside_a_format_an_answer_is_calls_or_keeps_it() -> None:
    spec = held(response_format=SCHEMA, tools=STRICT)
    for before in ("", THOUGHT):
        for good in (f'{FINAL}{{"city": "Oslo"}}', ROME, OTHER, ANY):
            assert takes(spec, before + good), good
            assert not takes(spec, SAID + before + good), good
        for wrong in (f"{FINAL}x", ELSEWHERE, f"{FINAL}{ROME}"):
            assert not takes(spec, before + wrong), wrong


def test_strict_tools_keep_their_schemas() -> None:
    spec = held(tools=STRICT)
    for before in ("", THOUGHT, THOUGHT + SAID):
        for good in (FINAL, f"{FINAL}Any text: {{}} é", ROME, ANY):
            assert takes(spec, before + good), good
        for wrong in (ELSEWHERE, HEADER.format("other") + "{}", f"{FINAL}x{NEXT}"):
            assert not takes(spec, before + wrong), wrong
    assert held(tools=LOOSE) is None
    assert held(tools=STRICT, tool_choice="none") is None


def test_the_prompt_may_end_in_a_message() -> None:
    begun = TEMPLATE.removesuffix("{% endif %}")
    final, analysis = (
        f"{begun}<|channel|>{each}<|message|>{{% endif %}}" for each in ("final", "analysis")
    )
    oslo = '{"city": "Oslo"}'
    assert takes(held(template=final, response_format=SCHEMA), oslo)
    assert takes(held(template=analysis, response_format=SCHEMA), f"So.{NEXT}{FINAL}{oslo}")
    assert not takes(held(template=analysis, response_format=SCHEMA), oslo)
    for template in (final, analysis):
        required = held(template=template, tools=LOOSE, tool_choice="required")
        assert takes(required, f"So.{NEXT}{ROME}")
        assert not takes(required, "So.")
        strict = held(template=template, tools=STRICT)
        assert takes(strict, f"So.{NEXT}{THOUGHT}{ROME}")
        assert not takes(strict, f"So.{NEXT}{ELSEWHERE}")
        assert takes(strict, "So.") is (template == final)


def test_an_answer_that_nothing_begins_for_begins_itself() -> None:
    spec = held(response_format=SCHEMA, add_generation_prompt=False)
    good = f'{THOUGHT}{FINAL}{{"city": "Oslo"}}'
    assert takes(spec, f"<|start|>assistant{good}")
    assert not takes(spec, good)


def test_the_field_that_asks_is_named() -> None:
    conversation = Conversation(lambda tools: TEMPLATE, IDS.get)

    def field(**fields: Any) -> str:
        return conversation.turn(parse_chat({"messages": HI, **fields})).grammar_field

    assert field(response_format=SCHEMA) == PLACE
    assert field(response_format=SCHEMA, tools=STRICT) == PLACE
    assert field(response_format=SCHEMA, tools=STRICT, tool_choice="required") == "tools"
    assert field(tools=STRICT) == "tools"
    assert field(response_format=SCHEMA, tools=STRICT, tool_choice="none") == PLACE
